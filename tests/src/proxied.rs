//! A router whose connections to the shards can be broken.

use std::collections::BTreeMap;

use switchyard_cluster::Node;

use crate::{Bed, Client, Login, Proxy, Router};

/// A router that reaches the primary of each shard through a proxy.
#[derive(Debug)]
pub struct Proxied {
    router: Router,
    proxies: BTreeMap<String, Proxy>,
}

impl Proxied {
    /// One more router on the servers of `bed`, with more lines of `[router]`.
    #[track_caller]
    pub fn new(bed: &Bed, lines: &str) -> Proxied {
        let nodes = bed
            .cluster()
            .shards()
            .iter()
            .map(|shard| shard.primary.as_ref());
        let proxies: BTreeMap<String, Proxy> = nodes
            .map(|node| (node.name().to_owned(), Proxy::to(node.port())))
            .collect();
        let router = bed.another_router(lines, &|node: &dyn Node| {
            let proxy = proxies.get(node.name());
            proxy.map_or(node.port(), Proxy::port)
        });
        Proxied { router, proxies }
    }

    /// The router.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The same, for signals and kills.
    pub fn router_mut(&mut self) -> &mut Router {
        &mut self.router
    }

    /// A client of the router.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&Login::new(self.router.port()))
    }

    /// What is between the router and the primary of a shard.
    pub fn of_shard(&self, shard: usize) -> &Proxy {
        &self.proxies[&format!("s{shard}-a")]
    }

    /// All of them.
    pub fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.values()
    }
}
