-- A small web shop. Foreign keys join colocated tables, and any table to a reference table: both ends are on one shard.

CREATE TABLE countries (
    code     char(2) PRIMARY KEY,
    name     text NOT NULL,
    currency char(3) NOT NULL
);

CREATE TABLE users (
    id         bigint PRIMARY KEY,
    email      text NOT NULL,
    name       text NOT NULL,
    country    char(2) NOT NULL REFERENCES countries,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE products (
    id         integer PRIMARY KEY,
    sku        uuid NOT NULL,
    name       text NOT NULL,
    price      numeric(10,2) NOT NULL CHECK (price >= 0),
    attributes jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE orders (
    user_id   bigint NOT NULL REFERENCES users,
    id        bigint NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now(),
    status    text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'paid', 'shipped', 'returned')),
    ship_to   char(2) NOT NULL REFERENCES countries,
    total     numeric(12,2) NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, id)
);

-- product_id refers to products, which lie elsewhere: PostgreSQL cannot check that across servers.
CREATE TABLE order_items (
    user_id    bigint NOT NULL,
    order_id   bigint NOT NULL,
    line       smallint NOT NULL,
    product_id integer NOT NULL,
    quantity   integer NOT NULL CHECK (quantity > 0),
    price      numeric(10,2) NOT NULL,
    PRIMARY KEY (user_id, order_id, line),
    FOREIGN KEY (user_id, order_id) REFERENCES orders ON DELETE CASCADE
);

CREATE TABLE events (
    created_at timestamp NOT NULL,
    id         bigint NOT NULL,
    user_id    bigint NOT NULL,
    kind       text NOT NULL,
    country    char(2) REFERENCES countries,
    PRIMARY KEY (created_at, id)
);
CREATE INDEX events_user ON events (user_id);
