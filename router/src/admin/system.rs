//! What the system says of this process: its memory and what it has open.

use std::fs;

/// What the system says, as far as it was asked.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// Kinds of memory, in bytes.
    pub memory: Vec<(String, u64)>,
    /// Numbers of descriptors, and what they are of.
    pub descriptors: Vec<(u64, String)>,
}

impl System {
    /// Asks for the memory.
    #[must_use]
    pub fn with_memory() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            memory: memory(&status),
            ..Self::default()
        }
    }

    /// Asks for the descriptors.
    #[must_use]
    pub fn with_descriptors() -> Self {
        let entries = fs::read_dir("/proc/self/fd");
        let entries = entries.into_iter().flatten().flatten();
        let mut descriptors: Vec<_> = entries
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                let target = fs::read_link(entry.path()).ok()?;
                Some((number, target.to_string_lossy().into_owned()))
            })
            .collect();
        descriptors.sort_unstable();
        Self {
            descriptors,
            ..Self::default()
        }
    }
}

/// The lines of `/proc/self/status` that are about memory.
fn memory(status: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (name, value) = line.strip_prefix("Vm")?.split_once(':')?;
        let kilobytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
        Some((format!("vm_{}", name.to_ascii_lowercase()), kilobytes << 10))
    };
    status.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells() {
        let status = "Name:\tx\nVmPeak:\t  2048 kB\nVmRSS:\t     16 kB\nThreads:\t3\n";
        let read = [
            ("vm_peak".to_owned(), 2 << 20),
            ("vm_rss".to_owned(), 16 << 10),
        ];
        assert_eq!(memory(status), read);
        assert!(!System::with_memory().memory.is_empty());
        let descriptors = System::with_descriptors().descriptors;
        assert!(descriptors.iter().any(|(number, _)| *number == 2));
    }
}
