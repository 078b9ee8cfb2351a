//! Rows in other encodings than the servers'.

use super::{bed, copies, copy, fails, rows, said, same};

/// Rows of `named` in an encoding: among them characters of which a byte is a backslash, a delimiter or a letter in ASCII.
const ROWS: &[(&str, &[u8])] = &[
    (
        "LATIN1",
        b"caf\xe9\t1\nb\xfc\t2\nplain\t3\n\xff\\xc3\\xa9\t4\n",
    ),
    ("'latin-9'", b"\xa4uro\t1\r\n\xbd\t2\r\n"),
    ("WIN1252", b"\x80uro\t1\n\x93x\x94\t2\n"),
    ("'windows-1251'", b"\xcc\xee\xf1\xea\xe2\xe0\t1\n"),
    ("KOI8R", b"\xed\xcf\xd3\xcb\xd7\xc1\t1\r\xc1\t2\r"),
    (
        "EUC_JP",
        b"\xc6\xfc\xcb\xdc\t1\n\x8e\xb1\t2\n\x8f\xb0\xa1\t3\n",
    ),
    (
        "SJIS",
        b"\x95\x5c\t1\n\x83\x7c\\n\t2\n\xb1\t3\n\x83\x5c\\\\\t4\n",
    ),
    ("BIG5", b"\xa5\x5c\t1\n\xaa\x7e\t2\n\xb3\x5c\\t\t3\n"),
    ("GBK", b"\x81\x5c\t1\n\xd6\xd0\t2\n"),
    ("GB18030", b"\x81\x30\x84\x36\t1\n\x81\x5c\t2\n"),
    ("UHC", b"\x81\x41\t1\n\xb0\xa1\t2\n"),
    ("SQL_ASCII", "é\t1\nplain\t2\n".as_bytes()),
];

#[test]
fn each_character_is_what_one_server_makes_of_it() {
    let (bed, _turn) = bed();
    for (encoding, data) in ROWS {
        let sql = format!("COPY named FROM STDIN (ENCODING {encoding})");
        assert_eq!(same(bed, "named", &sql, data), None, "{encoding}");
    }
    let sjis = "COPY named FROM STDIN (DELIMITER '|', ENCODING 'SJIS', NULL '\u{30dd}')";
    copies(
        bed,
        "named",
        sjis,
        b"\x83\x7c\x83\x7c|1\nx|2\n\x95\x5c|\x83\x7c\n",
    );
    let csv = "COPY named FROM STDIN WITH CSV HEADER ENCODING 'latin1'";
    copies(
        bed,
        "named",
        csv,
        b"l\xe0bel,n\n\"\xe9\n\"\"x\",1\n\xe8,2\n",
    );
    let added = "COPY issued (name) FROM STDIN (ENCODING 'LATIN1')";
    copies(bed, "issued", added, b"caf\xe9\n\xe8\nx\n");
    let reference = "COPY places FROM STDIN (ENCODING 'LATIN1')";
    copies(bed, "places", reference, b"\xe9\t\xe8\t2026-01-01\n");
    // In binary they are in the client's.
    let binary = "COPY named FROM STDIN (FORMAT binary, ENCODING 'LATIN1')";
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    data.extend_from_slice(b"\0\x02\0\0\0\x02\xc3\xa9\0\0\0\x04\0\0\0\x07\xff\xff");
    copies(bed, "named", binary, &data);
}

#[test]
fn what_is_no_character_is_told_with_its_line() {
    let (bed, _turn) = bed();
    let fails = |sql: &str, data: &[u8], code| fails(bed, "named", sql, data, code);
    let jp = "COPY named FROM STDIN (ENCODING 'EUC_JP')";
    fails(jp, b"\xc6\xfc\t1\n\xa4\t2\nx\t3\n", "22021");
    fails(jp, b"\xc6\xfc\t1\nx\t2\n\xa4\xff\t3", "22021");
    fails(jp, b"\xc6", "22021");
    // What is wrong before it comes first.
    fails(jp, b"x\t1\n\xc6\xfc\tno\n\xa4\t2\n", "22P02");
    fails(jp, b"x\t1\ny\n\xa4\t2\n", "22P04");
    let windows = "COPY named FROM STDIN (ENCODING 'WIN1252')";
    fails(windows, b"\x80\t1\n\x81\t2\n", "22P05");
    let csv = "COPY named FROM STDIN (FORMAT csv, ENCODING 'WIN1252')";
    fails(csv, b"a,1\n\"b\n\nc\x81\",2\n", "22P05");
    let unknown = "COPY named FROM STDIN (ENCODING 'nosuch')";
    fails(unknown, b"a\t1\n", "22023");
    // Behind the end nothing matters.
    let end = b"\xc6\xfc\t1\n\\.\n\xa4\n";
    copies(bed, "named", jp, end);
}

#[test]
fn a_line_among_many() {
    let (bed, _turn) = bed();
    let mut data = Vec::new();
    for row in 0..30_000_u32 {
        data.extend_from_slice(b"\xe9");
        data.extend_from_slice(format!("{row}\t{row}\n").as_bytes());
    }
    let sql = "COPY named FROM STDIN (ENCODING 'LATIN1')";
    let way = super::WAYS[0];
    let (mut plain, mut router) = (bed.oracle(), bed.client());
    for client in [&mut plain, &mut router] {
        let reply = copy(client, way, sql, &data);
        assert_eq!(reply.tag.as_deref(), Some("COPY 30000"), "{reply:?}");
        assert_eq!(rows(client, "named").len(), 30_000);
    }
    // What is written in another encoding is read in it.
    for encoding in ["LATIN1", "WIN1252", "UTF8"] {
        let sql = format!("COPY (SELECT label FROM named) TO STDOUT (ENCODING '{encoding}')");
        let [ours, theirs] = [&mut router, &mut plain].map(|client| {
            let copied = client.run(&sql).succeeded().copied;
            let mut lines: Vec<Vec<u8>> = copied
                .split(|byte| *byte == b'\n')
                .map(<[u8]>::to_vec)
                .collect();
            lines.sort_unstable();
            lines
        });
        assert!(ours == theirs, "{encoding}");
    }
    let cannot = client_says(&mut router, "COPY named TO STDOUT (ENCODING 'KOI8R')");
    assert_eq!(
        cannot,
        client_says(&mut plain, "COPY named TO STDOUT (ENCODING 'KOI8R')")
    );
    assert_eq!(cannot.as_deref(), Some("22P05"));
    for client in [&mut plain, &mut router] {
        client.run("TRUNCATE named").succeeded();
    }
    let euc = "COPY named FROM STDIN (ENCODING 'EUC_KR')";
    let mut lines: Vec<String> = (0..30_000).map(|row| format!("{row}\t{row}\n")).collect();
    lines[23_456] = "x".to_owned();
    let at = lines[..23_456].concat().len();
    let mut data = lines.concat().into_bytes();
    data[at] = 0xff;
    let replies = [&mut plain, &mut router].map(|client| copy(client, way, euc, &data));
    assert_eq!(said(&replies[1]), said(&replies[0]));
    assert!(said(&replies[0]).unwrap()[4].contains("line 23457"));
}

fn client_says(client: &mut switchyard_tests::Client, sql: &str) -> Option<String> {
    client.run(sql).sqlstate().map(str::to_owned)
}
