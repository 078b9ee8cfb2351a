#![allow(warnings, clippy::all)]
use switchyard_cluster::*;
use switchyard_router::demo::{
    load,
    shop::{self, Shop},
};
use switchyard_schema::Config;
fn main() {
    let cluster = Cluster::start(ClusterSpec::for_tests(2, 1).with_oracle()).unwrap();
    let file = RouterFile {
        listen: 7432,
        http: 7433,
        auth: "trust",
        router: "",
        tables: shop::TABLES,
    };
    let text = cluster.router_file(&file);
    std::fs::write("/tmp/dev.toml", &text).unwrap();
    let config = Config::parse(&text).unwrap();
    println!("{}", load(&cluster, &config, &Shop::SMALL).unwrap());
    println!("oracle {}", cluster.oracle().unwrap().port());
    println!("{text}");
    std::thread::sleep(std::time::Duration::from_secs(7200));
}
