//! The router's configuration file for a cluster.

use std::fmt::Write;

use crate::{APP_USER, Cluster, Node, Role};

/// What a configuration file says besides the cluster's own nodes.
#[derive(Debug, Clone)]
pub struct RouterFile<'a> {
    /// The port clients connect to, on 127.0.0.1.
    pub listen: u16,
    /// The port of the http endpoints.
    pub http: u16,
    /// How clients prove who they are.
    pub auth: &'a str,
    /// More lines of `[router]`, such as `pool_size = 5`.
    pub router: &'a str,
    /// The `[[databases.tables]]` part.
    pub tables: &'a str,
}

impl Cluster {
    /// The text of a configuration file for a router in front of this cluster. The user is [`APP_USER`], an admin.
    pub fn router_file(&self, file: &RouterFile<'_>) -> String {
        self.router_file_via(file, &|node: &dyn Node| node.port())
    }

    /// The same, where the router reaches each node at the port that `port_of` says, such as a proxy's.
    pub fn router_file_via(
        &self,
        file: &RouterFile<'_>,
        port_of: &dyn Fn(&dyn Node) -> u16,
    ) -> String {
        let RouterFile {
            listen,
            http,
            auth,
            router,
            tables,
        } = file;
        let spec = self.spec();
        let mut text = format!(
            "[router]\nlisten = \"127.0.0.1:{listen}\"\nhttp   = \"127.0.0.1:{http}\"\n{router}\n\n\
             [auth]\nmethod = {auth:?}\n\n\
             [[users]]\nname     = \"{APP_USER}\"\npassword = {:?}\nadmin    = true\n\n\
             [[databases]]\nname = {:?}\n",
            spec.password, spec.database,
        );
        for shard in self.shards() {
            let nodes = std::iter::once(&shard.primary).chain(&shard.replicas);
            let nodes = nodes.map(|node| (node.as_ref(), port_of(node.as_ref())));
            text.push_str(&shard_entry(&shard.name, nodes));
        }
        text.push_str(tables);
        if let Some(url) = self.catalog_url_via(port_of) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[catalog]\nurl = {url:?}\n");
        }
        text
    }
}

/// The text of a configuration file that has one shard more.
pub fn with_shard(file: &str, name: &str, primary: &dyn Node) -> String {
    let tables = "\n[[databases.tables]]";
    let shard = shard_entry(name, std::iter::once((primary, primary.port())));
    file.replacen(tables, &format!("{shard}{tables}"), 1)
}

fn shard_entry<'a>(name: &str, nodes: impl Iterator<Item = (&'a dyn Node, u16)>) -> String {
    let mut text = format!("\n[[databases.shards]]\nname  = {name:?}\nnodes = [\n");
    for ((node, port), zone) in nodes.zip('a'..) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {},", node_entry(node, port, zone));
    }
    text + "]\n"
}

fn node_entry(node: &dyn Node, port: u16, zone: char) -> String {
    let role = match node.role() {
        Role::Primary => "primary",
        Role::Replica => "replica",
    };
    format!(
        "{{ host = {:?}, port = {}, role = {role:?}, zone = \"{zone}\" }}",
        node.host(),
        port
    )
}
