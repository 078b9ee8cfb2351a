//! The function call protocol: the same calls to both, as libpq makes them for large objects.

use std::process::Command;

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;
use switchyard_tests::cluster::Install;

use super::{Pair, bed, execute, parse};

/// A call with arguments in binary, its result in binary.
fn call(function: u32, arguments: &[&[u8]], buffer: &mut BytesMut) {
    let mut body = BytesMut::new();
    body.put_u32(function);
    body.put_slice(&[0, 1, 0, 1]);
    body.put_u16(u16::try_from(arguments.len()).unwrap());
    for argument in arguments {
        body.put_u32(u32::try_from(argument.len()).unwrap());
        body.put_slice(argument);
    }
    body.put_u16(1);
    buffer.put_u8(b'F');
    buffer.put_u32(u32::try_from(body.len() + 4).unwrap());
    buffer.put_slice(&body);
}

/// Numbers of PostgreSQL's own functions.
const INT4_PLUS: u32 = 177;
const LO_OPEN: u32 = 952;
const LO_CREATE: u32 = 715;
const LO_UNLINK: u32 = 964;
const LO_READ: u32 = 954;
const LO_WRITE: u32 = 955;

#[test]
fn functions_are_called_as_by_one_server() {
    let mut pair = Pair::new();
    let number = |number: i32| number.to_be_bytes();
    pair.same(1, |buffer| {
        call(INT4_PLUS, &[&number(2), &number(40)], buffer)
    });
    // Wrong calls: no such function, too few arguments, a value of the wrong length; and then a right one.
    pair.same(1, |buffer| call(99_999_999, &[], buffer));
    pair.same(1, |buffer| call(INT4_PLUS, &[&number(2)], buffer));
    pair.same(1, |buffer| call(INT4_PLUS, &[&number(2), &[1, 2]], buffer));
    pair.same(1, |buffer| {
        call(INT4_PLUS, &[&number(i32::MAX), &number(1)], buffer)
    });
    pair.same(1, |buffer| {
        call(INT4_PLUS, &[&number(1), &number(1)], buffer)
    });
    // Large objects live in a block.
    let object = number(4_242_424);
    let write = |buffer: &mut BytesMut| frontend::query("BEGIN", buffer).unwrap();
    pair.same(1, write);
    pair.same(1, |buffer| call(LO_CREATE, &[&object], buffer));
    pair.same(1, |buffer| {
        call(LO_OPEN, &[&object, &number(0x60000)], buffer)
    });
    pair.same(1, |buffer| {
        call(LO_WRITE, &[&number(0), b"some bytes"], buffer)
    });
    pair.same(1, |buffer| {
        frontend::query("SELECT lo_lseek(0, 5, 0)", buffer).unwrap()
    });
    pair.same(1, |buffer| {
        call(LO_READ, &[&number(0), &number(100)], buffer)
    });
    // An error fails the block, and what follows in it is refused.
    pair.same(1, |buffer| {
        call(LO_OPEN, &[&number(1), &number(0x40000)], buffer)
    });
    pair.same(1, |buffer| {
        call(INT4_PLUS, &[&number(1), &number(1)], buffer)
    });
    pair.same(1, |buffer| frontend::query("ROLLBACK", buffer).unwrap());
    pair.same(1, |buffer| call(LO_UNLINK, &[&object], buffer));
    // Among messages of the extended protocol, and skipped after an error there.
    pair.same(2, |buffer| {
        parse("", "SELECT 1", buffer);
        switchyard_tests::bind("", "", &[], 0, buffer);
        execute("", 0, buffer);
        frontend::sync(buffer);
        call(INT4_PLUS, &[&number(3), &number(4)], buffer);
    });
}

#[test]
fn psql_keeps_large_objects() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
    std::fs::write(&from, &content).unwrap();
    let script = directory.path().join("script");
    let steps = format!(
        "\\lo_import {}\n\\lo_export :LASTOID {}\n\\lo_unlink :LASTOID\n",
        from.display(),
        to.display()
    );
    std::fs::write(&script, steps).unwrap();
    let url = format!(
        "postgres://app:secret@127.0.0.1:{}/shop",
        bed().router().port()
    );
    let done = Command::new(Install::find(None).unwrap().client("psql"))
        .args([&url, "-X", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(&script)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(std::fs::read(&to).unwrap() == content);
    assert!(String::from_utf8_lossy(&done.stdout).contains("lo_unlink"));
}
