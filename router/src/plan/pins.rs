//! Why a backend stays with one session.

/// A set of reasons to keep a backend for one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pins(u8);

/// A reason to keep a backend for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// A temporary table, view or sequence.
    Temporary,
    /// A cursor `WITH HOLD`.
    HoldCursor,
    /// A session-level advisory lock.
    AdvisoryLock,
    /// A statement prepared by `PREPARE`.
    Prepared,
    /// A setting that code has changed, perhaps, and nobody knows which.
    Setting,
    /// A library loaded by `LOAD`.
    Library,
}

impl Pin {
    /// Every reason.
    pub const ALL: [Pin; 6] = [
        Pin::Temporary,
        Pin::HoldCursor,
        Pin::AdvisoryLock,
        Pin::Prepared,
        Pin::Setting,
        Pin::Library,
    ];

    /// For people.
    pub const fn label(self) -> &'static str {
        match self {
            Pin::Temporary => "temporary table",
            Pin::HoldCursor => "held cursor",
            Pin::AdvisoryLock => "advisory lock",
            Pin::Prepared => "prepared statement",
            Pin::Setting => "unknown setting",
            Pin::Library => "library",
        }
    }
}

impl Pins {
    /// No reason.
    pub const NONE: Pins = Pins(0);

    /// One reason.
    pub const fn one(pin: Pin) -> Self {
        Pins(1 << pin as u8)
    }

    /// Adds reasons.
    pub fn extend(&mut self, other: Pins) {
        self.0 |= other.0;
    }

    /// Adds a reason.
    pub fn insert(&mut self, pin: Pin) {
        self.0 |= 1 << pin as u8;
    }

    /// Without a reason.
    pub fn remove(&mut self, pin: Pin) {
        self.0 &= !(1 << pin as u8);
    }

    /// As one number.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// From [`Pins::bits`].
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Pins(bits)
    }

    /// Whether there is no reason.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this reason is one of them.
    pub const fn contains(self, pin: Pin) -> bool {
        self.0 & (1 << pin as u8) != 0
    }

    /// The reasons.
    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.contains(*pin))
    }
}
