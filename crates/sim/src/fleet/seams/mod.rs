//! What a worker is given in place of the world: the same seams, with the weather in them, and an eye on each call.

mod lag;
mod processor;
mod sink;
mod store;
mod stream;

pub(crate) use processor::SimProcessor;
pub(crate) use sink::SimSink;
pub(crate) use store::SimStore;
pub(crate) use stream::SimStream;
