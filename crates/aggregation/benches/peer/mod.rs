//! The library `aws_kinesis_agg`, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A Python that has the library, running the script beside this file.
pub(crate) struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What it takes for one record, in seconds.
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) decode: f64,
    pub(crate) encode: f64,
}

impl Peer {
    /// None where no interpreter is named.
    pub(crate) fn from_environment() -> Option<Self> {
        let python = std::env::var_os("SHARDWELL_PYTHON")?;
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peer/peer.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("SHARDWELL_PYTHON names an interpreter");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Some(Self { child, input, output })
    }

    /// Lets it read and write a record.
    pub(crate) fn time(&mut self, blob: &[u8]) -> Times {
        let input = self.input.as_mut().expect("it is open until the end");
        writeln!(input, "{}", blob.len()).and_then(|()| input.write_all(blob)).expect("the script reads");
        input.flush().expect("the script reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the script answers");
        let fields: Vec<f64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let [count, decode, encode] = fields[..] else { panic!("the script failed, see above") };
        Times { count: count as usize, decode, encode }
    }
}

impl Drop for Peer {
    /// The script ends where its input does.
    fn drop(&mut self) {
        self.input = None;
        drop(self.child.wait());
    }
}
