//! The lock that all who write letters take, and readers for a moment.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// What is locked out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lock {
    /// Everybody else.
    Exclusive,
    /// Those who write.
    Shared,
}

/// Takes the lock of an open file. It is advisory and belongs to the open file, so it goes when the process does.
///
/// It asks again and again: a thread that waited inside of the system could not give up, and would keep the process from
/// ending for as long as another one is stopped.
#[expect(clippy::disallowed_methods, reason = "files live on real threads and a real disk, outside of any `Env`")]
pub(crate) fn lock(file: &File, lock: Lock, patience: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    for attempt in 0u64.. {
        let locked = match lock {
            Lock::Exclusive => file.try_lock(),
            Lock::Shared => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(Failure::Io("locking the file", error)),
        }
        if start.elapsed() >= patience {
            break;
        }
        // Writes are short: at first it is worth asking often.
        std::thread::sleep(Duration::from_millis((1 + attempt / 4).min(20)));
    }
    Err(Failure::Locked(patience))
}
