//! Where the process is in its life, as probes see it.

use std::sync::{Arc, Mutex, PoisonError};

/// Cheap to clone; clones share the phase.
#[derive(Clone)]
pub struct Health(Arc<Mutex<Phase>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// On the way up; with what is waited for.
    Starting(String),
    Serving,
    Draining,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Phase::Starting("the process starts".to_owned()))))
    }
}

impl Health {
    pub fn set(&self, phase: Phase) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub fn phase(&self) -> Phase {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
