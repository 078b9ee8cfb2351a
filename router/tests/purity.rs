//! Modules that promise to be pure do not reach for sockets, threads, clocks, files or randomness.

use std::fs;
use std::path::{Path, PathBuf};

/// What a pure module may not name.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
    "std::process",
    "Instant",
    "SystemTime",
    "sqlx",
    "socket2",
    "crate::session",
    "crate::execute",
    "crate::backend",
    "crate::topology",
];

fn sources(at: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if at.is_file() {
        found.push(at.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(at)? {
        sources(&entry?.path(), found)?;
    }
    Ok(())
}

/// Modules that are compiled for tests only may do what they like.
fn is_test(path: &Path) -> bool {
    let name = path
        .file_stem()
        .and_then(|name| name.to_str())
        .unwrap_or("");
    matches!(name, "cases" | "tests") || path.components().any(|part| part.as_os_str() == "fixture")
}

#[test]
fn pure_modules_do_no_io() {
    let router = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = router.parent().unwrap();
    let pure = [
        router.join("src/sql"),
        router.join("src/plan"),
        router.join("src/merge"),
        router.join("src/copy_in"),
        router.join("src/relations"),
        workspace.join("schema/src"),
        workspace.join("wire/src"),
    ];
    let mut files = Vec::new();
    for folder in &pure {
        let before = files.len();
        sources(folder, &mut files).unwrap();
        assert!(files.len() > before, "{} is empty", folder.display());
    }
    files.retain(|path| {
        path.extension().is_some_and(|extension| extension == "rs") && !is_test(path)
    });
    let mut impure = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        // Unit tests at the end of a file are not part of the module.
        let code = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or(&text);
        for (at, line) in code
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            let named = FORBIDDEN.iter().filter(|name| line.contains(*name));
            impure.extend(named.map(|name| format!("{}:{}: {name}", path.display(), at + 1)));
        }
    }
    assert!(impure.is_empty(), "not pure:\n{}", impure.join("\n"));
}
