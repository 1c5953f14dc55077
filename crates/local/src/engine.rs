//! Starting and stopping.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use shardwell_core::Timestamp;
use shardwell_core::memory::kinesis::{Kinesis, SharedKinesis, StateDelays};
use tokio::sync::oneshot;

use crate::server;
use crate::state::{Clock, State};

/// How long a stream takes to be created, resharded or deleted unless told otherwise.
const DEFAULT_STATE_DELAY: Duration = Duration::from_millis(100);

/// A running engine. Dropping it stops it: every connection is closed, and the port is free when the drop returns.
///
/// It runs on threads of its own, so it neither needs nor disturbs a runtime of the caller's.
pub struct LocalEngine {
    address: SocketAddr,
    state: State,
    /// `Some` until the engine is stopped.
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another program listens there.
    #[error(
        "port {} on {} is taken by another program: stop that, or choose another port (0 takes any free one)",
        .address.port(),
        .address.ip()
    )]
    PortTaken {
        /// Where the engine was to listen.
        address: SocketAddr,
    },
    /// The system refused the address.
    #[error("cannot listen on {address}: choose an address of this machine and a port above 1023")]
    Bind {
        /// Where the engine was to listen.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system refused a thread.
    #[error("cannot start the threads of the engine")]
    Threads(#[source] io::Error),
}

impl LocalEngine {
    /// Starts an engine with all defaults: a free port on 127.0.0.1, region `us-east-1`.
    ///
    /// # Errors
    /// When the system refuses the port or a thread.
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    /// An engine that is to differ from the defaults.
    pub fn builder() -> LocalEngineBuilder {
        LocalEngineBuilder::default()
    }

    /// The URL to give to clients on this machine, such as `http://127.0.0.1:4567`.
    pub fn endpoint(&self) -> String {
        let host = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(host, self.address.port()))
    }

    /// Where the engine listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The model behind the engine. What is changed there is seen by the next request.
    pub fn kinesis(&self) -> &SharedKinesis {
        &self.state.kinesis
    }

    /// The engine's wall clock.
    pub fn now(&self) -> Timestamp {
        self.state.now()
    }

    /// Moves the engine's wall clock into the future, for good: records age, iterators expire, states go on.
    pub fn advance_clock(&self, by: Duration) {
        self.state.advance(by);
    }

    /// Stops the engine and waits until its port is free. The same as dropping it, without blocking the thread.
    pub async fn stop(mut self) {
        if let Some(Running { stop, stopped, thread }) = self.running.take() {
            // Nobody listens if the server ended by itself, and then there is nothing to stop.
            let _ = stop.send(());
            let _ = stopped.await;
            join(thread);
        }
    }
}

impl Drop for LocalEngine {
    fn drop(&mut self) {
        if let Some(Running { stop, thread, .. }) = self.running.take() {
            let _ = stop.send(());
            join(thread);
        }
    }
}

/// Brief: the thread's work is over once its runtime has dropped its tasks, none of which blocks.
fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("the engine's thread panicked");
    }
}

impl fmt::Debug for LocalEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalEngine")
            .field("address", &self.address)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What an engine is to be like. Made by [`LocalEngine::builder`].
#[derive(Clone)]
pub struct LocalEngineBuilder {
    host: IpAddr,
    port: u16,
    region: String,
    state_delay: Duration,
    clock: Clock,
}

impl Default for LocalEngineBuilder {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            region: "us-east-1".to_owned(),
            state_delay: DEFAULT_STATE_DELAY,
            clock: Arc::new(system_time),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the engine's default clock is the system's")]
fn system_time() -> Timestamp {
    std::time::SystemTime::now().into()
}

impl LocalEngineBuilder {
    /// The address to listen on. Default: 127.0.0.1. The engine checks no signatures: whoever reaches it may do
    /// anything to its streams.
    #[must_use]
    pub fn host(mut self, host: impl Into<IpAddr>) -> Self {
        self.host = host.into();
        self
    }

    /// The port to listen on. Default: 0, any free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The region that ARNs name. Default: `us-east-1`. Requests signed for any region are answered.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = region.into();
        self
    }

    /// How long a stream takes to be created, resharded or deleted. Default: 100 ms, so that programs which do not wait
    /// for a stream to be active fail here before they fail on AWS.
    #[must_use]
    pub fn state_delay(mut self, delay: Duration) -> Self {
        self.state_delay = delay;
        self
    }

    /// The wall clock. Default: the system's. An `Env`'s can be given as `move || env.timestamp()`.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Starts the engine. It takes requests when this returns.
    ///
    /// # Errors
    /// When the port is taken, or the system refuses the address or a thread.
    pub async fn start(self) -> Result<LocalEngine, StartError> {
        let kinesis = Kinesis::new(self.region).with_delays(StateDelays::all(self.state_delay));
        let state = State::new(SharedKinesis::new(kinesis), self.clock);
        let wanted = SocketAddr::new(self.host, self.port);
        let (listener, address) = bind(wanted).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::PortTaken { address: wanted },
            _ => StartError::Bind { address: wanted, source },
        })?;
        let running = run(listener, state.clone()).map_err(StartError::Threads)?;
        tracing::info!(%address, "the local engine takes requests");
        Ok(LocalEngine { address, state, running: Some(running) })
    }
}

impl fmt::Debug for LocalEngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalEngineBuilder")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("region", &self.region)
            .field("state_delay", &self.state_delay)
            .finish_non_exhaustive()
    }
}

fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves on a runtime of its own: when its thread ends, every task and connection has ended with it.
fn run(listener: TcpListener, state: State) -> io::Result<Running> {
    let (stop, stop_requested) = oneshot::channel();
    let (ended, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("shardwell-local")
        .enable_io()
        .enable_time()
        .build()?;
    let thread = std::thread::Builder::new().name("shardwell-local".to_owned()).spawn(move || {
        runtime.block_on(server::serve(listener, state, stop_requested));
        drop(runtime);
        // Nobody waits when the engine is dropped rather than stopped.
        let _ = ended.send(());
    })?;
    Ok(Running { stop, stopped, thread })
}
