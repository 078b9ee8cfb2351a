//! SCRAM-SHA-256, both sides, as state machines whose steps consume the state.
