//! System calls that more than one room makes, behind safe functions. What the launch alone needs is in `launch`.

pub(crate) mod attribute;
pub(crate) mod auxiliary;
pub(crate) mod pidfd;
pub(crate) mod pipe;
pub(crate) mod priority;
