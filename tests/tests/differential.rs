//! The router answers as one PostgreSQL with all the data would: the files in `slt/`, statement by statement, by the simple
//! and the extended protocol, in text and in binary.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use switchyard_tests::differential::{self, Protocol, Sides};
use switchyard_tests::{Bed, BedSpec, Client};

/// The tables besides the shop's.
const OTHERS: [&str; 20] = [
    "accounts", "regions", "sessions", "labels", "notes", "amounts", "tags", "codes", "moments",
    "readings", "entries", "tokens", "numbered", "posts", "issued", "queued", "places", "loose",
    "houses", "rooms",
];

/// Beds that nobody uses: the files change the same tables.
static IDLE: Mutex<Vec<Bed>> = Mutex::new(Vec::new());

struct Both<'a>(&'a Bed);

impl Sides for Both<'_> {
    fn oracle(&self) -> Client {
        self.0.oracle()
    }

    fn router(&self) -> Client {
        self.0.client()
    }
}

/// The same, the router's reads answered by this layer wherever they can be.
struct Layer<'a>(&'a Bed, &'static str);

impl Sides for Layer<'_> {
    fn oracle(&self) -> Client {
        self.0.oracle()
    }

    fn router(&self) -> Client {
        let mut client = self.0.client();
        client
            .run(&format!("SET switchyard.layer = '{}'", self.1))
            .succeeded();
        client
    }
}

#[track_caller]
fn same(file: &str) {
    same_between(file, |bed, path, protocol| {
        differential::run(path, protocol, &Both(bed));
    });
}

/// What is merged in the router, a workspace answers alike.
#[test]
fn merge_in_workspaces() {
    same_between("merge.slt", |bed, path, protocol| {
        differential::run(path, protocol, &Layer(bed, "workspace"));
    });
}

/// Tables here are small: of itself the router gives their rows to each other's shards, once it knows.
#[test]
fn merge_without_bind_joins() {
    same_between("merge.slt", |bed, path, protocol| {
        differential::run(path, protocol, &Layer(bed, "merge"));
    });
}

#[test]
fn workspace_in_workspaces() {
    same_between("workspace.slt", |bed, path, protocol| {
        differential::run(path, protocol, &Layer(bed, "workspace"));
    });
}

/// And so do joins by rows that are given, of whatever tables.
#[test]
fn merge_in_bind_joins() {
    same_between("merge.slt", |bed, path, protocol| {
        differential::run(path, protocol, &Layer(bed, "bind join"));
    });
}

/// What is answered by giving rows to shards, a workspace answers alike.
#[test]
fn bind_join_in_workspaces() {
    same_between("bind_join.slt", |bed, path, protocol| {
        differential::run(path, protocol, &Layer(bed, "workspace"));
    });
}

/// Reads of one cut answer alike.
struct Consistent<'a>(&'a Bed);

impl Sides for Consistent<'_> {
    fn oracle(&self) -> Client {
        self.0.oracle()
    }

    fn router(&self) -> Client {
        let option = "-cswitchyard.consistent_read=on";
        Client::connect(&self.0.login().with("options", option))
    }
}

#[test]
fn scatter_consistently() {
    same_between("scatter.slt", |bed, path, protocol| {
        differential::run(path, protocol, &Consistent(bed));
    });
}

#[track_caller]
fn same_between(file: &str, run: impl Fn(&Bed, &Path, Protocol)) {
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let tables = (
        include_str!("../slt/tables.sql"),
        include_str!("../slt/tables.toml"),
    );
    let found = idle().pop();
    let bed = found.unwrap_or_else(|| Bed::start(BedSpec::usual().with_tables(tables.0, tables.1)));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt").join(file);
    for protocol in Protocol::ALL {
        bed.refill(&OTHERS);
        run(&bed, &path, protocol);
    }
    idle().push(bed);
}

macro_rules! files {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                same(concat!(stringify!($name), ".slt"));
            }
        )*

        #[test]
        fn no_file_is_forgotten() {
            let known = [$(concat!(stringify!($name), ".slt")),*];
            for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("slt")).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(!name.ends_with(".slt") || known.contains(&name.as_str()), "{name} has no test");
            }
        }
    };
}

files! { single_shard prepared scatter workspace bind_join around create_as locks reference transactions errors catalog ddl copy stored_keys merge write_parts write_ahead insert sequences moves write_ctes upserts current_of views notices }
