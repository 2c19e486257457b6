//! One module per command.

pub mod bench;
pub mod cluster;
pub mod control_plane;
pub mod crds;
pub mod demo;
mod interruption;
pub mod test;
