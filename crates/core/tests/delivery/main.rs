//! The delivery of a shard as a whole: recorded vectors, an independent oracle, bounds, and properties under generated
//! schedules with crashes.

mod bounds;
mod crashes;
mod formation;
mod oracle;
mod properties;
mod quarantine;
mod restarts;
mod rules;
mod runner;
mod script;
mod vectors;
mod world;
