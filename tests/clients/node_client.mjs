// node-postgres against the shop: named statements, transactions, COPY streams, a pool. Prints what it saw.
import assert from "node:assert";
import { createRequire } from "node:module";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

// The packages are beside this program's caller's choice of directory, not beside this file.
const require = createRequire(process.argv[3] + "/");
const pg = require("pg");
const copy = require("pg-copy-streams");

const client = new pg.Client({ connectionString: process.argv[2], application_name: "node" });
await client.connect();
const print = (label, value) => console.log(label, JSON.stringify(value));

for (const id of [1, 2, 3, 250]) {
  const named = { name: "user by id", text: "SELECT id, name, country FROM users WHERE id = $1", values: [id] };
  print("user", (await client.query(named)).rows);
}
for (let id = 1; id < 12; id += 1) {
  print("total", (await client.query("SELECT sum(total) FROM orders WHERE user_id = $1", [id])).rows[0]);
}
const product = await client.query({ text: "SELECT * FROM products WHERE id = $1", values: [7], rowMode: "array" });
print("product", [product.rows, product.fields.map((field) => [field.name, field.dataTypeID, field.format])]);
const several = await client.query("SELECT id FROM users WHERE country = $1", ["no"]);
print("everywhere", several.rows.map((row) => row.id).sort());
print("simple", (await client.query("SELECT id, name FROM users WHERE id = 5")).rows);

await client.query("BEGIN");
await client.query("INSERT INTO users (id, email, name, country) VALUES ($1, $2, $3, $4)", [700001, "n@example.com", "N", "no"]);
for (let n = 1; n <= 3; n += 1) {
  const inserted = await client.query("INSERT INTO orders (user_id, id, ship_to, total) VALUES ($1, $2, 'no', $3) RETURNING total", [700001, n, n * 1.5]);
  print("inserted", [inserted.command, inserted.rowCount, inserted.rows]);
}
await client.query("SAVEPOINT a");
await assert.rejects(client.query("SELECT 1 / 0 FROM users WHERE id = $1", [700001]), { code: "22012" });
await assert.rejects(client.query("SELECT 1"), { code: "25P02" });
await client.query("ROLLBACK TO SAVEPOINT a");
await client.query("COMMIT");
print("orders", (await client.query("SELECT count(*), sum(total) FROM orders WHERE user_id = 700001")).rows);
await assert.rejects(client.query("INSERT INTO users (id, email, name, country) VALUES (700001, 'x', 'x', 'no')"), { code: "23505" });

const lines = Array.from({ length: 2000 }, (_, n) => `${n + 1}\tnote ${n + 1}\n`);
const into = client.query(copy.from("COPY notes (id, body) FROM STDIN"));
await pipeline(Readable.from(lines), into);
print("copied in", into.rowCount);
let text = "";
for await (const chunk of client.query(copy.to("COPY (SELECT id, total FROM orders WHERE user_id = 700001 ORDER BY id) TO STDOUT"))) {
  text += chunk;
}
print("copied out", text);
print("notes", (await client.query("SELECT count(*), max(body) FROM notes")).rows);

await client.query("DELETE FROM orders WHERE user_id = 700001");
await client.query("DELETE FROM users WHERE id = 700001");
await client.query("TRUNCATE notes RESTART IDENTITY");
await client.end();

const pool = new pg.Pool({ connectionString: process.argv[2], max: 8 });
const names = await Promise.all(
  Array.from({ length: 100 }, (_, n) => pool.query("SELECT name FROM users WHERE id = $1", [n + 1]).then((found) => found.rows[0].name)),
);
print("pool", names);
await pool.end();
