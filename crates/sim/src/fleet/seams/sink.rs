//! A process's way to the dead letters.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardwell_core::EnvExt;
use shardwell_core::dead_letter::{DeadLetter, DeadLetterSink, SinkError, SinkErrorKind};

use crate::fleet::kind::Kind;
use crate::fleet::lies::Lie;
use crate::fleet::weather::ProcessId;
use crate::fleet::world::World;

/// The sink as one process sees it.
pub(crate) struct SimSink {
    pub(crate) world: Arc<World>,
    pub(crate) process: ProcessId,
}

impl fmt::Debug for SimSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSink").field("process", &self.process).finish_non_exhaustive()
    }
}

impl fmt::Display for SimSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated dead letters")
    }
}

#[async_trait]
impl DeadLetterSink for SimSink {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        self.world.state().writes_letters(self.process, letters);
        let failing = {
            let mut state = self.world.state();
            let (now, process) = (state.now, self.process);
            let state = &mut *state;
            state.weather.strikes(Kind::FailingSink, process, now, &mut state.random)
        };
        self.world.env.sleep(Duration::from_millis(5)).await;
        if failing {
            return Err(SinkError::new(SinkErrorKind::Unavailable, "the sink is out of order"));
        }
        if self.world.lie != Some(Lie::LettersNotWritten) {
            self.world.letters.put(letters).await?;
            self.world.state().letters_kept(self.process, letters);
        }
        Ok(())
    }
}
