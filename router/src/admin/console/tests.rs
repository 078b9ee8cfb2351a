//! The console over a pipe.

use std::sync::Mutex;

use bytes::BytesMut;
use switchyard_wire::backend::{self, Message};
use switchyard_wire::frontend::{Kind, encode};
use switchyard_wire::list::Format;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use super::*;
use crate::admin::sample;

struct Desk(Mutex<Rights>);

impl Desk {
    fn of(rights: Rights) -> Self {
        Self(Mutex::new(rights))
    }
}

impl Office for Desk {
    fn view(&self) -> View {
        sample::view()
    }

    fn rights(&self, _: &str) -> Rights {
        *self.0.lock().unwrap()
    }

    async fn reload(&self) -> Result<(), String> {
        Err("x.toml:1:1: wrong".to_owned())
    }

    async fn set(&self, key: &str, _: &str) -> Result<(), String> {
        Err(format!("{key} is wrong"))
    }

    async fn carry_out(&self, order: Order) -> Result<(), String> {
        match order == Order::Resume(None) {
            true => Err("nothing is paused".to_owned()),
            false => Ok(()),
        }
    }
}

fn visitor() -> Visitor {
    Visitor {
        user: "app".into(),
        pid: 1,
        secret: vec![1, 2, 3, 4].into(),
    }
}

/// Says all of this and hears everything until the console has closed.
async fn converse(rights: Rights, say: impl FnOnce(&mut BytesMut)) -> Vec<String> {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (_switch, drain) = watch::channel(false);
    let (visitor, desk) = (visitor(), Desk::of(rights));
    let console = serve(server, BytesMut::new(), &visitor, &desk, Drain::new(drain));
    let mut said = BytesMut::new();
    say(&mut said);
    let talk = async {
        client.write_all(&said).await.unwrap();
        client.shutdown().await.unwrap();
        hear(&mut client).await
    };
    let (outcome, heard) = tokio::join!(console, talk);
    outcome.unwrap();
    heard
}

async fn hear(client: &mut DuplexStream) -> Vec<String> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    let mut rest = bytes.as_slice();
    let mut heard = Vec::new();
    while let Some(split) = frame::split(rest).unwrap() {
        rest = split.rest;
        heard.push(describe_message(
            &backend::decode(split.tag, split.body).unwrap(),
        ));
    }
    // The greeting ends with the first ReadyForQuery.
    match heard.iter().position(|message| message == "ready") {
        Some(greeting) => heard.split_off(greeting + 1),
        None => heard,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is named as it is")]
fn describe_message(message: &Message<'_>) -> String {
    match message {
        Message::ReadyForQuery(_) => "ready".into(),
        Message::RowDescription(_) => "columns".into(),
        Message::DataRow(row) => {
            let values = row
                .iter()
                .map(|value| value.map_or(0, <[u8]>::len).to_string());
            format!("row {}", values.collect::<Vec<_>>().join(","))
        }
        Message::CommandComplete { tag } => String::from_utf8_lossy(tag).into_owned(),
        Message::ErrorResponse(fields) => {
            let severity = String::from_utf8_lossy(fields.get(b'S').unwrap()).into_owned();
            format!("{severity} {}", fields.sqlstate().unwrap().as_str())
        }
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn simple_queries_are_answered() {
    let heard = converse(Rights::All, |out| {
        encode::query(out, b"SHOW VERSION; SHOW VERSION");
        encode::query(out, b"SHOW NOSUCH; SHOW VERSION");
        encode::query(out, b";");
        encode::query(out, b"RELOAD");
        encode::query(out, b"BEGIN");
    })
    .await;
    assert_eq!(
        heard,
        [
            "columns",
            "row 16",
            "SELECT 1",
            "columns",
            "row 16",
            "SELECT 1",
            "ready",
            "ERROR 42601",
            "ready",
            "EmptyQueryResponse",
            "ready",
            "ERROR F0000",
            "ready",
            "BEGIN",
            "ready",
        ]
    );
}

#[tokio::test]
async fn extended_queries_are_answered_and_errors_skip_to_sync() {
    let heard = converse(Rights::All, |out| {
        encode::parse(out, b"p", b"SHOW BUCKETS", &[]);
        encode::describe(out, Kind::Statement, b"p");
        encode::bind(
            out,
            b"",
            b"p",
            &[],
            &[] as &[Option<&[u8]>],
            &[Format::Binary],
        );
        encode::execute(out, b"", 1);
        encode::execute(out, b"", 0);
        encode::sync(out);
        encode::parse(out, b"", b"SELECT 1", &[]);
        encode::execute(out, b"", 0);
        encode::sync(out);
        encode::bind(out, b"", b"nosuch", &[], &[] as &[Option<&[u8]>], &[]);
        encode::sync(out);
        encode::close(out, Kind::Statement, b"p");
        encode::parse(out, b"p", b"", &[]);
        encode::sync(out);
    })
    .await;
    let rows: Vec<_> = heard
        .iter()
        .filter(|message| message.starts_with("row"))
        .collect();
    assert_eq!(rows, ["row 4,2,8,7,8", "row 4,2,8,7,8"]);
    let errors: Vec<_> = heard
        .iter()
        .filter(|message| message.starts_with("ERROR"))
        .collect();
    assert_eq!(errors, ["ERROR 42601", "ERROR 26000"]);
    assert_eq!(
        heard.iter().filter(|message| *message == "ready").count(),
        4
    );
    assert!(heard.contains(&"PortalSuspended".to_owned()), "{heard:?}");
    assert!(heard.contains(&"SELECT 2".to_owned()), "{heard:?}");
}

#[tokio::test]
async fn every_topic_can_be_shown() {
    for topic in super::super::command::Topic::ALL {
        let sql = format!("SHOW {}", topic.word());
        let heard = converse(Rights::All, |out| encode::query(out, sql.as_bytes())).await;
        assert_eq!(heard[0], "columns", "{sql}: {heard:?}");
        assert!(
            heard[heard.len() - 2].starts_with("SELECT "),
            "{sql}: {heard:?}"
        );
    }
}

/// Who may look may do nothing else, by either protocol.
#[tokio::test]
async fn every_command_has_its_right() {
    let shown = Topic::ALL.map(|topic| format!("SHOW {}", topic.word()));
    let orders = Order::FORMS.map(|form| form.replace(['[', ']', '<', '>'], "").replace("id", "1"));
    let others = orders
        .into_iter()
        .chain(["RELOAD", "SET pool_size = 1"].map(str::to_owned));
    let commands = shown.into_iter().map(|sql| {
        let may = sql != "SHOW FDS";
        (sql, may)
    });
    for (sql, may) in commands.chain(others.map(|sql| (sql, false))) {
        let heard = converse(Rights::Show, |out| {
            encode::query(out, sql.as_bytes());
            encode::parse(out, b"", sql.as_bytes(), &[]);
            encode::bind(out, b"", b"", &[], &[] as &[Option<&[u8]>], &[]);
            encode::execute(out, b"", 0);
            encode::sync(out);
        })
        .await;
        let denied = heard.iter().filter(|said| *said == "ERROR 42501").count();
        assert_eq!(denied, if may { 0 } else { 2 }, "{sql}: {heard:?}");
    }
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_gone() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (_switch, drain) = watch::channel(false);
    let (visitor, desk) = (visitor(), Desk::of(Rights::All));
    let console = serve(server, BytesMut::new(), &visitor, &desk, Drain::new(drain));
    let talk = async {
        let mut said = BytesMut::new();
        encode::query(&mut said, b"SHOW FDS");
        client.write_all(&said).await.unwrap();
        // The greeting, and the end of the answer.
        let mut last = [0; 6];
        for _ in 0..2 {
            while last != *b"Z\0\0\0\x05I" {
                last.rotate_left(1);
                last[5] = client.read_u8().await.unwrap();
            }
            last = [0; 6];
        }
        *desk.0.lock().unwrap() = Rights::Show;
        client.write_all(&said).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let (outcome, answer) = tokio::join!(console, talk);
    outcome.unwrap();
    assert!(answer.contains("C42501"), "{answer:?}");
}

#[tokio::test]
async fn others_are_refused_and_nonsense_ends_it() {
    assert_eq!(converse(Rights::None, |_| {}).await, ["FATAL 42501"]);
    let heard = converse(Rights::All, |out| out.extend_from_slice(b"Q\0\0\0\x01")).await;
    assert_eq!(heard, ["FATAL 08P01"]);
    let heard = converse(Rights::All, |out| out.extend_from_slice(b"?\0\0\0\x04")).await;
    assert_eq!(heard, ["FATAL 08P01"]);
    let heard = converse(Rights::All, |out| out.extend_from_slice(b"Q\0\x10\0\0")).await;
    assert_eq!(heard, ["FATAL 08P01"]);
}

#[tokio::test]
async fn a_drain_sends_it_away() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (switch, drain) = watch::channel(false);
    let (visitor, desk) = (visitor(), Desk::of(Rights::All));
    let console = serve(server, BytesMut::new(), &visitor, &desk, Drain::new(drain));
    let talk = async {
        switch.send_replace(true);
        hear(&mut client).await
    };
    let (outcome, heard) = tokio::join!(console, talk);
    outcome.unwrap();
    assert_eq!(heard, ["FATAL 57P01"]);
}

#[tokio::test]
async fn orders_are_carried_out_or_refused_with_the_reason() {
    let said = converse(Rights::All, |out| {
        encode::query(out, b"pause \"shop\"; RESUME; SHOW VERSION");
        encode::parse(out, b"", b"KILL_CLIENT 7", &[]);
        encode::bind(out, b"", b"", &[], &[] as &[Option<&[u8]>], &[]);
        encode::describe(out, Kind::Portal, b"");
        encode::execute(out, b"", 0);
        encode::sync(out);
        encode::terminate(out);
    })
    .await;
    let simple = ["PAUSE", "ERROR 55000", "ready"];
    let extended = [
        "ParseComplete",
        "BindComplete",
        "NoData",
        "KILL_CLIENT",
        "ready",
    ];
    assert_eq!(said, [&simple[..], &extended[..]].concat());
}
