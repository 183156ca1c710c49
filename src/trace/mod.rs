//! Spans and events for the crate tracing (feature `tracing`): `docs/tracing.md` has their fields. Each place that
//! reports something calls one function here, which does nothing without the feature.
//!
//! No field has a value of the environment, an argument of a program, or what it reads or writes: these may be secrets.
//! Nothing here is called between the clone of a process and the execution of its program.

#[cfg(not(feature = "tracing"))]
mod no_spans;
#[cfg(feature = "tracing")]
mod spans;

#[cfg(not(feature = "tracing"))]
pub(crate) use no_spans::*;
#[cfg(feature = "tracing")]
pub(crate) use spans::*;
