//! Types and tables that users have made: every shard numbers them for itself, and clients meet the first shard's numbers only.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, BytesMut};
use postgres_protocol::message::frontend;
use switchyard_tests::{Client, Message};

use super::bed;

/// Two users' worth of keys on either shard.
const OWNERS: [i32; 4] = [1, 2, 3, 4];

/// A number as one shard, by its position, has it.
fn oid_on(shard: usize, of: &str) -> u32 {
    let primary = bed().cluster().shard(shard).primary.as_ref();
    let oid = format!("SELECT {of}::oid");
    bed().cluster().sql(primary, &oid).unwrap().parse().unwrap()
}

/// A number as the system catalogue has it that clients read.
fn oid(client: &mut Client, of: &str) -> u32 {
    let oid = format!("SELECT {of}::oid");
    client.run(&oid).value().parse().unwrap()
}

/// Table and type of every column.
fn columns(message: &Message) -> Vec<(u32, u32)> {
    let mut body = &message.body[..];
    let count = body.get_u16();
    let column = |_| {
        let name = body.iter().position(|byte| *byte == 0).unwrap();
        body.advance(name + 1);
        let table = body.get_u32();
        body.advance(2);
        let kind = body.get_u32();
        body.advance(8);
        (table, kind)
    };
    (0..count).map(column).collect()
}

fn until_ready(client: &mut Client) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages
        .last()
        .is_none_or(|last: &Message| last.tag != b'Z')
    {
        messages.push(client.receive());
    }
    messages
}

/// The columns of a statement as it is described by the simple protocol, before and after it is bound. All the same.
#[track_caller]
fn described(client: &mut Client, sql: &str) -> Vec<(u32, u32)> {
    client.send(|buffer| frontend::query(sql, buffer).unwrap());
    let mut messages = until_ready(client);
    client.send(|buffer| {
        frontend::parse("", sql, [], buffer).unwrap();
        frontend::describe(b'S', "", buffer).unwrap();
        frontend::sync(buffer);
    });
    messages.extend(until_ready(client));
    client.send(|buffer| {
        frontend::parse("", sql, [], buffer).unwrap();
        switchyard_tests::bind("", "", &[], 0, buffer);
        frontend::describe(b'P', "", buffer).unwrap();
        frontend::execute("", 0, buffer).unwrap();
        frontend::sync(buffer);
    });
    messages.extend(until_ready(client));
    let found = messages.iter().filter(|message| message.tag == b'T');
    let found: Vec<_> = found.map(columns).collect();
    assert_eq!(found.len(), 3, "{sql}: {messages:?}");
    assert_eq!(found[0], found[1], "{sql}: simple, then the statement");
    assert_eq!(found[0], found[2], "{sql}: simple, then the portal");
    found[0].clone()
}

#[test]
fn shards_number_otherwise() {
    for of in [
        "'colour'::regtype",
        "'places'::regclass",
        "'colour[]'::regtype",
    ] {
        assert_ne!(oid_on(0, of), oid_on(1, of), "{of}");
    }
}

#[test]
fn descriptions_have_the_numbers_that_the_catalogue_has() {
    // Every session begins with another shard for what any of them can say.
    for owner in OWNERS {
        let mut client = bed().client();
        let colour = oid(&mut client, "'colour'::regtype");
        let colours = oid(&mut client, "'colour[]'::regtype");
        let places = oid(&mut client, "'places'::regclass");
        let row = oid(&mut client, "'places'::regtype");
        let parameters = client.parameter_types("SELECT $1::colour, $2::colour[], $3::places");
        assert_eq!(parameters.unwrap(), [colour, colours, row]);
        for condition in [
            format!("owner = {owner}"),
            "true".to_owned(),
            "owner IN (1, 2)".to_owned(),
        ] {
            let plain = format!("SELECT kind, ARRAY[kind], places FROM places WHERE {condition}");
            let expected = [(places, colour), (0, colours), (places, row)];
            assert_eq!(described(&mut client, &plain), expected, "{plain}");
        }
        let merged = "SELECT kind, owner FROM places ORDER BY owner, number LIMIT 3";
        assert_eq!(
            described(&mut client, merged),
            [(places, colour), (places, 23)]
        );
        let grouped = "SELECT kind, count(*) FROM places GROUP BY kind";
        assert_eq!(described(&mut client, grouped)[0].1, colour);
        let joined = "SELECT a.kind, array_agg(b.kind) FROM places a JOIN places b ON a.number = b.owner GROUP BY a.kind";
        let kinds: Vec<u32> = described(&mut client, joined)
            .iter()
            .map(|column| column.1)
            .collect();
        assert_eq!(kinds, [colour, colours]);
        client.run("BEGIN").succeeded();
        let written =
            format!("UPDATE places SET kind = 'red' WHERE owner = {owner} RETURNING kind");
        assert_eq!(described(&mut client, &written), [(places, colour)]);
        client.run("ROLLBACK").succeeded();
    }
}

/// A value in binary: an array with these elements, of this type.
fn array(element: u32, elements: &[&[u8]]) -> Vec<u8> {
    let mut value = BytesMut::new();
    value.put_u32(1);
    value.put_u32(0);
    value.put_u32(element);
    value.put_u32(u32::try_from(elements.len()).unwrap());
    value.put_u32(1);
    for element in elements {
        value.put_u32(u32::try_from(element.len()).unwrap());
        value.put_slice(element);
    }
    value.to_vec()
}

/// A value in binary: a row of such values.
fn row(fields: &[(u32, &[u8])]) -> Vec<u8> {
    let mut value = BytesMut::new();
    value.put_u32(u32::try_from(fields.len()).unwrap());
    for (oid, field) in fields {
        value.put_u32(*oid);
        value.put_u32(u32::try_from(field.len()).unwrap());
        value.put_slice(field);
    }
    value.to_vec()
}

/// Runs a statement with parameters of these types, values in binary; the first column of its rows.
#[track_caller]
fn bound(client: &mut Client, sql: &str, types: &[u32], values: &[Vec<u8>]) -> BTreeSet<String> {
    client.send(|buffer| {
        frontend::parse("", sql, types.iter().copied(), buffer).unwrap();
        let encoded = frontend::bind(
            "",
            "",
            [1],
            values,
            |value, buffer| {
                buffer.extend_from_slice(value);
                Ok(postgres_protocol::IsNull::No)
            },
            [0],
            buffer,
        );
        assert!(encoded.is_ok());
        frontend::execute("", 0, buffer).unwrap();
        frontend::sync(buffer);
    });
    let messages = until_ready(client);
    let failed = messages.iter().find(|message| message.tag == b'E');
    assert!(failed.is_none(), "{sql}: {failed:?}");
    let rows = messages.iter().filter(|message| message.tag == b'D');
    rows.map(|row| {
        let mut body = &row.body[2..];
        let length = usize::try_from(body.get_i32()).unwrap();
        String::from_utf8(body[..length].to_vec()).unwrap()
    })
    .collect()
}

#[test]
fn what_clients_number_by_the_catalogue_is_understood_on_every_shard() {
    let mut client = bed().client();
    client
        .run("CREATE TYPE spot AS (kind colour, kinds colour[], number int)")
        .succeeded();
    let colour = oid(&mut client, "'colour'::regtype");
    let colours = oid(&mut client, "'colour[]'::regtype");
    let spot = oid(&mut client, "'spot'::regtype");
    let spots = oid(&mut client, "'spot[]'::regtype");
    let of_spot = row(&[
        (colour, b"blue"),
        (colours, &array(colour, &[b"red", b"green"])),
        (23, &7_i32.to_be_bytes()),
    ]);
    let as_text = BTreeSet::from(["(blue,\"{red,green}\",7)".to_owned()]);
    for owner in OWNERS {
        let key = owner.to_be_bytes().to_vec();
        let one = "SELECT $2 FROM users WHERE id = $1";
        let two = BTreeSet::from(["{red,blue}".to_owned()]);
        let kinds = array(colour, &[b"red", b"blue"]);
        assert_eq!(
            bound(
                &mut client,
                one,
                &[23, colours],
                &[key.clone(), kinds.clone()]
            ),
            two
        );
        assert_eq!(
            bound(
                &mut client,
                one,
                &[23, spot],
                &[key.clone(), of_spot.clone()]
            ),
            as_text
        );
        let several = "SELECT $2[1] FROM users WHERE id = $1";
        let many = array(spot, &[&of_spot]);
        assert_eq!(
            bound(&mut client, several, &[23, spots], &[key.clone(), many]),
            as_text
        );
        // The same by types that the server finds out, and over all shards.
        let inferred = "SELECT u.id FROM users u WHERE u.id < 3 AND 'red' = ANY ($1::colour[])";
        let ids = BTreeSet::from(["1".to_owned(), "2".to_owned()]);
        client.parameter_types(inferred).unwrap();
        assert_eq!(bound(&mut client, inferred, &[], &[kinds]), ids);
    }
    client.run("DROP TYPE spot").succeeded();
}

#[test]
fn types_made_in_a_block_have_their_numbers_in_it_and_after_it() {
    let mut client = bed().client();
    client.run("BEGIN").succeeded();
    client
        .run("CREATE TYPE mood AS ENUM ('sad', 'glad')")
        .succeeded();
    let made = oid(&mut client, "'mood'::regtype");
    let use_it = |client: &mut Client| {
        for owner in OWNERS {
            let sql = format!("SELECT 'sad'::mood FROM users WHERE id = {owner}");
            assert_eq!(described(client, &sql), [(0, made)], "{sql}");
        }
        let all = "SELECT 'sad'::mood FROM users WHERE id < 3";
        assert_eq!(described(client, all), [(0, made)]);
    };
    use_it(&mut client);
    client.run("COMMIT").succeeded();
    use_it(&mut client);
    use_it(&mut bed().client());
    client.run("DROP TYPE mood").succeeded();
}
