//! What can be chosen, and what the configuration file and whoever shows it call each choice.

use crate::model::{Consistency, PoolMode, ReadPolicy};

impl PoolMode {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Transaction, Self::Session, Self::Statement];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
            Self::Statement => "statement",
        }
    }
}

impl ReadPolicy {
    /// Every choice.
    pub const ALL: [Self; 4] = [
        Self::RoundRobin,
        Self::LeastConnections,
        Self::ClientAddress,
        Self::Primary,
    ];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::ClientAddress => "client-address",
            Self::Primary => "primary",
        }
    }
}

impl Consistency {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Session, Self::Strong, Self::Eventual];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Strong => "strong",
            Self::Eventual => "eventual",
        }
    }
}
