//! Developer tasks, and the parts of them that the tests use too: programs that never outlive their parent, and a real
//! Kubernetes control plane made of them.

pub mod control_plane;
pub mod supervised;
