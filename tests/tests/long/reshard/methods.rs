//! Tables by range, list and remainder: what the file says of them comes true in the same way.

use switchyard_tests::{Asks, Reshard, eventually};

use super::killed;
use super::load::{stand_by, under_load};

/// Days with their notes, ports, and parts: by range, list and remainder. The key of none of them is NULL alone.
const DDL: &str = "
CREATE TABLE days (day date, n int NOT NULL, m float8 DEFAULT 'NaN', twice int GENERATED ALWAYS AS (n * 2) STORED, z float8 DEFAULT '-0');
CREATE UNIQUE INDEX days_day ON days (day);
CREATE TABLE notes (at date REFERENCES days (day), words text[] NOT NULL);
CREATE TYPE flag AS ENUM ('red', 'blue');
CREATE TYPE spot AS (x float8, at timestamptz, name text);
CREATE TABLE ports (code text, flags flag[] NOT NULL, spot spot DEFAULT (0.1, '2026-01-01 00:00:00+00', E'a\t,\\b'));
CREATE TABLE parts (id int, word text NOT NULL, flags flag[] DEFAULT '{red,NULL,blue}');
";
/// What the files for two and for three shards say.
const RANGES: [&str; 2] = [
    r#"ranges = [ { below = "2026-01-01", shard = "s0" }, { shard = "s1" } ]"#,
    r#"ranges = [ { below = "2025-06-01", shard = "s0" }, { below = "2026-03-01", shard = "s2" }, { below = "2026-05-01", shard = "s1" }, { shard = "s0" } ]"#,
];
const LISTS: [&str; 2] = [
    r#"lists = [ { values = ["kr", "jp"], shard = "s0" }, { default = true, shard = "s1" } ]"#,
    r#"lists = [ { values = ["kr", "se"], shard = "s1" }, { values = ["it's"], shard = "s0" }, { default = true, shard = "s2" } ]"#,
];
const SHARDS: [&str; 2] = [
    r#"shards = [ "s0", "s1" ]"#,
    r#"shards = [ "s2", "s1", "s0" ]"#,
];

fn tables() -> String {
    let [ranges, lists, shards] = [RANGES, LISTS, SHARDS].map(|[two, _]| two);
    format!(
        r#"
[[databases.tables]]
name = "days"
shard_key = "day"
method = "range"
{ranges}
[[databases.tables]]
name = "notes"
shard_key = "at"
method = "range"
colocate_with = "days"
[[databases.tables]]
name = "ports"
shard_key = "code"
method = "list"
{lists}
[[databases.tables]]
name = "parts"
shard_key = "id"
method = "modulo"
{shards}
"#
    )
}

/// 365 days of 2025 and 181 of 2026, three notes for each and some for none, some hundred ports, and 3000 parts.
const FILL: [&str; 4] = [
    "INSERT INTO days SELECT '2025-01-01'::date + n, n FROM generate_series(0, 545) AS n",
    "INSERT INTO notes SELECT '2025-01-01'::date + n % 546, ARRAY['note', n::text] FROM generate_series(0, 1637) AS n",
    "INSERT INTO ports (code, flags) SELECT (ARRAY['kr', 'jp', 'se', 'it''s', 'de'])[1 + n % 5], ARRAY['red', 'blue']::flag[] FROM generate_series(0, 499) AS n",
    "INSERT INTO parts (id, word) SELECT n - 1500, 'part ' || n FROM generate_series(0, 2999) AS n",
];
const NULLS: [&str; 3] = [
    "INSERT INTO notes VALUES (NULL, '{never}')",
    "INSERT INTO ports (flags) VALUES ('{red}')",
    "INSERT INTO parts (word) VALUES ('none')",
];
/// What has to be the same whatever moves.
const SEEN: &str = "\
SELECT (SELECT concat_ws(' ', count(*), sum(n), sum(twice), min(m), min(z::text)) FROM days), (SELECT count(*) || ' ' || sum(length(words[2])) FROM notes),
       (SELECT count(*) || ' ' || sum(cardinality(flags)) || ' ' || sum(length(spot::text)) FROM ports),
       (SELECT count(*) || ' ' || sum(id) || ' ' || sum(length(flags::text)) FROM parts)";
/// What each shard has.
const HAS: &str = "\
SELECT (SELECT concat(min(day), '..', max(day), ' ', count(*)) FROM days), (SELECT concat(count(*), ' ', count(*) - count(at)) FROM notes),
       (SELECT string_agg(DISTINCT coalesce(code, 'NULL'), ',' ORDER BY coalesce(code, 'NULL')) FROM ports),
       (SELECT concat(string_agg(DISTINCT ((id % 3 + 3) % 3)::text, ',' ORDER BY ((id % 3 + 3) % 3)::text), ' ', count(*), ' ', count(*) - count(id)) FROM parts)";

fn stand() -> Reshard {
    let stand = Reshard::start(DDL, &tables());
    for [two, three] in [RANGES, LISTS, SHARDS] {
        stand.rewrite(Asks::Three, two, three);
    }
    let mut client = stand.bed.client();
    for fill in FILL.iter().chain(&NULLS) {
        client.run(fill).succeeded();
    }
    stand
}

/// What the two first shards have.
fn two(stand: &Reshard) -> [String; 2] {
    [0, 1].map(|shard| stand.superuser(shard, HAS))
}

#[test]
fn ranges_lists_and_remainders_move() {
    let stand = stand();
    let mut client = stand.bed.client();
    let seen = |client: &mut switchyard_tests::Client| client.run(SEEN).succeeded().texts();
    let before = seen(&mut client);
    let was = [
        "2025-01-01..2025-12-31 365|1095 0|jp,kr|0,1,2 1501 1",
        "2026-01-01..2026-06-30 181|544 1|NULL,de,it's,se|0,1,2 1500 0",
    ];
    assert_eq!(two(&stand), was);

    // What moves is known before.
    let plan = stand.run(Asks::Three, &["plan"]).succeeded();
    for part in [
        "move about 214 rows of days",
        "move about 59 rows of days",
        "move about 501 rows of parts",
        "s2 needs about",
    ] {
        assert!(plan.contains(part), "{plan}");
    }
    assert_eq!(two(&stand), was);

    let small = ["apply", "--yes", "--group-rows", "100"];
    let report = stand.run(Asks::Three, &small).succeeded();
    stand.is_clean(Asks::Three);
    assert_eq!(seen(&mut client), before);
    let three = [
        "2025-01-01..2026-06-30 212|637 1|it's|2 1000 0",
        "2026-03-01..2026-04-30 61|183 0|kr,se|1 1000 0",
        "2025-06-01..2026-02-28 273|819 0|NULL,de,jp|0 1001 1",
    ];
    assert_eq!(stand.on_all(HAS), three);
    let number = |before: &str| -> u64 {
        let number = report.split(before).next().unwrap().rsplit(' ').next();
        number.unwrap().parse().unwrap()
    };
    let (rows, groups) = (number(" rows in "), number(" groups moved"));
    assert!(rows > 2000 && groups > rows / 100, "{report}");
    let status = stand.run(Asks::Three, &["status"]).succeeded();
    assert!(
        status.contains("4 of 4 tables without hash keys"),
        "{status}"
    );

    stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
    stand.is_clean(Asks::Three);
    assert_eq!(two(&stand), was);
    stand.run(Asks::Three, &["rollback", "--yes"]).succeeded();
    stand.is_clean(Asks::Three);
    assert_eq!(stand.on_all(HAS), three);
    stand.run(Asks::Three, &["finish"]).succeeded();
    let plan = stand.run(Asks::Three, &["plan"]).succeeded();
    assert!(plan.contains("Nothing to do"), "{plan}");
    // Written by what holds now.
    client
        .run("INSERT INTO ports (code, flags) VALUES ('fr', '{blue}'), ('se', '{blue}')")
        .succeeded();
    client
        .run("INSERT INTO parts (id, word) VALUES (5999, 'new'), (6000, 'new')")
        .succeeded();
    let new = "SELECT concat((SELECT count(*) FROM ports WHERE code = 'fr'), (SELECT count(*) FROM parts WHERE word = 'new'))";
    assert_eq!(stand.on_all(new), ["01", "00", "11"]);
    stand.is_clean(Asks::Three);
}

/// What is only written otherwise moves nothing.
#[test]
fn a_range_is_split_where_it_is() {
    let stand = stand();
    let has = two(&stand);
    let split = r#"ranges = [ { below = "2025-03-01", shard = "s0" }, { below = "2026-01-01", shard = "s0" }, { shard = "s1" } ]"#;
    stand.rewrite(Asks::Two, RANGES[0], split);
    let report = stand.run(Asks::Two, &["apply", "--yes"]).succeeded();
    assert!(report.contains("0 rows in 0 groups"), "{report}");
    stand.run(Asks::Two, &["finish"]).succeeded();
    let plan = stand.run(Asks::Two, &["plan"]).succeeded();
    assert!(plan.contains("Nothing to do"), "{plan}");
    assert_eq!(two(&stand), has);
    stand.is_clean(Asks::Two);
}

#[test]
fn what_would_part_is_refused() {
    let stand = stand();
    let refused = |reason: &str| {
        let plan = stand.run(Asks::Three, &["plan"]);
        let told = format!("  in the way: {reason}");
        assert!(!plan.well && plan.output.contains(&told), "{plan:?}");
        let outcome = stand.run(Asks::Three, &["apply", "--yes"]);
        assert!(!outcome.well && outcome.log.contains(reason), "{outcome:?}");
        stand.is_clean(Asks::Two);
        stand.run(Asks::Two, &["abort"]).succeeded();
    };
    let follows = "method = \"range\"\ncolocate_with = \"days\"";
    let own = format!("method = \"range\"\n{}", RANGES[0]);
    stand.rewrite(Asks::Three, follows, &own);
    refused("table notes cannot move: it refers to table days, which is to be elsewhere");
    stand.rewrite(Asks::Three, &own, follows);
    let many: Vec<String> = (0..9999).map(|n| format!("\"s{}\"", n % 3)).collect();
    let many = format!("shards = [{}]", many.join(","));
    stand.rewrite(Asks::Three, SHARDS[1], &many);
    refused(
        "table parts cannot move: remainders by 2 and by 9999 cannot be told apart by one number up to 16384",
    );
}

/// What is between two layouts is one, too: it can be left so, and gone on from.
#[test]
fn what_is_aborted_stays_where_it_is() {
    let stand = stand();
    let mut client = stand.bed.client();
    let before = client.run(SEEN).succeeded().texts();
    // Only remainders move.
    for [two, three] in [RANGES, LISTS] {
        stand.rewrite(Asks::Three, three, two);
    }
    stand.rewrite(Asks::Three, "name  = \"s2\"", "name  = \"s2\"\nweight = 0");
    let few = ["apply", "--yes", "--group-rows", "100"];
    let program = stand.spawn(Asks::Three, &few);
    eventually("parts move", || {
        let parts = "SELECT to_regclass('parts') IS NOT NULL";
        stand.superuser(2, parts) == "t" && stand.superuser(2, "SELECT count(*) FROM parts") != "0"
    });
    stand.run(Asks::Three, &["pause"]).succeeded();
    let output = program.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let status = stand.run(Asks::Three, &["status"]).succeeded();
    let paused = "0 of 1 tables without hash keys are placed anew; paused until `resume`";
    assert!(status.contains(paused), "{status}");
    stand.run(Asks::Three, &["abort"]).succeeded();
    stand.is_clean(Asks::Three);
    assert_eq!(client.run(SEEN).succeeded().texts(), before);
    assert_ne!(stand.superuser(2, "SELECT count(*) FROM parts"), "1001");

    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    stand.is_clean(Asks::Three);
    assert_eq!(stand.superuser(2, "SELECT count(*) FROM parts"), "1001");
    assert_eq!(client.run(SEEN).succeeded().texts(), before);
}

/// The ways of the rows that clients work with.
const WAYS: [[&str; 2]; 3] = [
    [
        "method = \"range\"\nranges = [ { below = 300, shard = \"s0\" }, { shard = \"s1\" } ]",
        "method = \"range\"\nranges = [ { below = 150, shard = \"s1\" }, { below = 500, shard = \"s2\" }, { shard = \"s0\" } ]",
    ],
    [
        "method = \"list\"\nlists = [ { values = [1, 2, 3, 4, 5, 6, 7], shard = \"s0\" }, { default = true, shard = \"s1\" } ]",
        "method = \"list\"\nlists = [ { values = [4, 5, 6, 7, 8, 9], shard = \"s1\" }, { values = [10], shard = \"s0\" }, { default = true, shard = \"s2\" } ]",
    ],
    [
        "method = \"modulo\"\nshards = [ \"s0\", \"s1\" ]",
        "method = \"modulo\"\nshards = [ \"s2\", \"s1\", \"s0\" ]",
    ],
];

#[test]
fn clients_notice_nothing_of_other_methods() {
    for [two, three] in WAYS {
        let stand = stand_by(two, three);
        let done = under_load(&stand, || {
            let few = ["apply", "--yes", "--group-rows", "200", "--busy", "100"];
            stand.run(Asks::Three, &few).succeeded();
            let back = ["rollback", "--yes", "--busy", "100"];
            stand.run(Asks::Three, &back).succeeded();
        });
        stand.is_clean(Asks::Three);
        done.is_there(&stand);
    }
}

#[test]
fn the_program_is_killed_while_ranges_move() {
    let [two, three] = WAYS[0];
    killed(&stand_by(two, three));
}

const MEMBERS: &str = "CREATE TABLE members (id bigint PRIMARY KEY, email text NOT NULL);";
const MEMBER_RANGES: [&str; 2] = [
    r#"ranges = [ { below = 50, shard = "s0" }, { shard = "s1" } ]"#,
    r#"ranges = [ { below = 20, shard = "s1" }, { below = 80, shard = "s2" }, { shard = "s0" } ]"#,
];

/// Its index says which key has a value, and so where, wherever that is by now.
#[test]
fn what_is_unique_on_all_shards_stays_so() {
    let [two, three] = MEMBER_RANGES;
    let table = "[[databases.tables]]\nname = \"members\"\nshard_key = \"id\"\nmethod = \"range\"";
    let stand = Reshard::start(MEMBERS, &format!("\n{table}\n{two}\n"));
    stand.rewrite(Asks::Three, two, three);
    let mut client = stand.bed.client();
    client
        .run("SELECT create_global_unique_index('members', 'email')")
        .succeeded();
    client
        .run("INSERT INTO members SELECT n, 'm' || n FROM generate_series(0, 99) AS n")
        .succeeded();
    stand.run(Asks::Three, &["apply", "--yes"]).succeeded();
    stand.is_clean(Asks::Three);
    let counts = stand.on_all("SELECT count(*) FROM members");
    assert_eq!(counts, ["20", "20", "60"]);
    for id in [0, 19, 20, 49, 50, 79, 80, 99] {
        let found = format!("SELECT id FROM members WHERE email = 'm{id}'");
        assert_eq!(client.run(&found).value(), id.to_string());
    }
    let twice = client.run("INSERT INTO members VALUES (1000, 'm30')");
    assert_eq!(twice.failure.unwrap().sqlstate(), "23505");
    client
        .run("UPDATE members SET email = 'new' WHERE id = 30")
        .succeeded();
    client
        .run("INSERT INTO members VALUES (1000, 'm30')")
        .succeeded();
    stand.is_clean(Asks::Three);
}
