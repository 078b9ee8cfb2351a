//! A bed whose buckets can move: two shards behind a router, a third that is empty, and the program that moves them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use switchyard_cluster::{Cluster, ClusterSpec, MOVING_RIGHTS, Node, Stop, with_shard};
use tempfile::TempDir;

use crate::router::program;
use crate::{Bed, BedSpec};

/// The bed, and files that ask for two and for three shards.
#[derive(Debug)]
pub struct Reshard {
    /// Two shards, and a router.
    pub bed: Bed,
    /// The third.
    pub third: Cluster,
    directory: TempDir,
}

/// How many shards a file asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// The two there are at first.
    Two,
    /// The third as well.
    Three,
}

/// What a run of the program has come to.
#[derive(Debug)]
pub struct Outcome {
    /// Whether it succeeded.
    pub well: bool,
    /// Its standard output.
    pub output: String,
    /// Its log.
    pub log: String,
}

impl Outcome {
    /// The output of a run that has succeeded.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert!(self.well, "{}{}", self.output, self.log);
        self.output
    }
}

/// Runs the program that moves rows, with a command and a file, to its end.
pub fn migrate(arguments: &[&str], file: &Path) -> Outcome {
    let output = migration(arguments, file).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Outcome {
        well: output.status.success(),
        output: text(output.stdout),
        log: text(output.stderr),
    }
}

fn migration(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(program("switchyard-migrate-under-test"));
    command
        .args(arguments)
        .arg("--config")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Reshard {
    /// Starts it; with more tables, where there is DDL.
    #[track_caller]
    pub fn start(ddl: &str, tables: &str) -> Reshard {
        Reshard::start_with(0, ddl, tables)
    }

    /// The same with so many replicas of each of the first two shards.
    #[track_caller]
    pub fn start_with(replicas: usize, ddl: &str, tables: &str) -> Reshard {
        let spec = BedSpec::of(ClusterSpec::for_tests(2, replicas).with_catalog());
        let bed = Bed::start(spec.with_tables(ddl, tables));
        let third = Cluster::start(ClusterSpec::for_tests(1, 0)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let two = std::fs::read_to_string(bed.router().config_file()).unwrap();
        let three = with_shard(&two, "s2", third.shard(0).primary.as_ref());
        let stand = Reshard {
            bed,
            third,
            directory,
        };
        for (asks, text) in [(Asks::Two, two), (Asks::Three, three)] {
            std::fs::write(stand.file(asks), text).unwrap();
        }
        for shard in 0..3 {
            stand.superuser(shard, MOVING_RIGHTS);
        }
        stand
    }

    /// Has a file say something else.
    #[track_caller]
    pub fn rewrite(&self, asks: Asks, from: &str, to: &str) {
        let file = self.file(asks);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&file, text.replace(from, to)).unwrap();
    }

    /// A shard's primary dies, its first replica becomes the primary, and the files and the catalog have it so.
    #[track_caller]
    pub fn promote(&self, shard: usize) {
        let shard = self.bed.cluster().shard(shard);
        shard.primary.stop(Stop::Kill).unwrap();
        let replica = shard.replicas[0].as_ref();
        replica.promote().unwrap();
        let is_of = |line: &str, node: &dyn Node| {
            line.contains("role = ") && line.contains(&format!("port = {}", node.port()))
        };
        for asks in [Asks::Two, Asks::Three] {
            let text = std::fs::read_to_string(self.file(asks)).unwrap();
            let kept = text
                .lines()
                .filter(|line| !is_of(line, shard.primary.as_ref()));
            let lines = kept.map(|line| match is_of(line, replica) {
                true => line.replace("\"replica\"", "\"primary\""),
                false => line.to_owned(),
            });
            let lines: Vec<String> = lines.collect();
            std::fs::write(self.file(asks), lines.join("\n")).unwrap();
        }
        self.run(Asks::Three, &["nodes"]).succeeded();
    }

    fn file(&self, asks: Asks) -> PathBuf {
        self.directory.path().join(format!("{asks:?}.toml"))
    }

    /// The primary of a shard.
    pub fn primary(&self, shard: usize) -> (&Cluster, &dyn Node) {
        match shard {
            2 => (&self.third, self.third.shard(0).primary.as_ref()),
            _ => (
                self.bed.cluster(),
                self.bed.cluster().shard(shard).primary.as_ref(),
            ),
        }
    }

    /// Runs SQL on a shard as the superuser.
    #[track_caller]
    pub fn superuser(&self, shard: usize, sql: &str) -> String {
        let (cluster, node) = self.primary(shard);
        cluster.superuser_sql(node, "shop", sql).unwrap()
    }

    /// Runs SQL on a shard as the user who owns the tables.
    #[track_caller]
    pub fn owner(&self, shard: usize, sql: &str) -> String {
        let (cluster, node) = self.primary(shard);
        cluster.sql(node, sql).unwrap()
    }

    /// What each shard says, the third as well.
    #[track_caller]
    pub fn on_all(&self, sql: &str) -> Vec<String> {
        (0..3).map(|shard| self.superuser(shard, sql)).collect()
    }

    /// The program with a command and a file.
    pub fn command(&self, asks: Asks, arguments: &[&str]) -> Command {
        migration(arguments, &self.file(asks))
    }

    /// Starts it.
    pub fn spawn(&self, asks: Asks, arguments: &[&str]) -> Child {
        self.command(asks, arguments).spawn().unwrap()
    }

    /// Runs it to its end.
    pub fn run(&self, asks: Asks, arguments: &[&str]) -> Outcome {
        migrate(arguments, &self.file(asks))
    }

    /// Every row is where the catalog says, and nothing is left behind.
    #[track_caller]
    pub fn is_clean(&self, asks: Asks) {
        self.run(asks, &["verify"]).succeeded();
        assert_eq!(
            self.on_all("SELECT count(*) FROM pg_prepared_xacts"),
            ["0"; 3]
        );
        let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'switchyard_bucket%'";
        assert_eq!(self.on_all(left), ["0"; 3]);
    }
}
