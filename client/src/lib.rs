//! How to reach a Meridian cluster from Rust.
//!
//! Behind the hidden feature `cluster` lies what nodes need to dial one another: channels, the meta group's client, the
//! catalog as every node sees it, the data path's calls, and the transaction coordinator.

#[cfg(feature = "cluster")]
#[doc(hidden)]
pub mod cluster;
