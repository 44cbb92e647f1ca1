//! Each way of not reaching the broker has a word of its own, and no number of attempts costs anything.

use std::net::TcpListener;

use crate::support::ports::own_port;
use crate::support::{Gateway, Options, SOON, rabbit, wait_until};

#[test]
fn nobody_listens() {
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", own_port());
    let gateway = Gateway::start(&options(&url));
    gateway.wait_until_away("refused", "refused");
    assert!(!gateway.log().contains("guest:guest"));
}

#[test]
fn the_name_has_no_address() {
    let gateway = Gateway::start(&options("amqp://guest:guest@no-such-broker.invalid/%2f"));
    gateway.wait_until_away("dns", "no-such-broker.invalid");
}

#[test]
fn the_virtual_host_is_not_there() {
    let Some(route) = rabbit::shared() else {
        return;
    };
    let url = route.url.replace("/%2f", "/nowhere");
    let gateway = Gateway::start(&Options::amqp(&route).set("broker.url", url.as_str()));
    gateway.wait_until_away("vhost", "nowhere");
}

/// A broker that hangs takes connections and says nothing.
#[test]
fn nothing_is_answered() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for (scheme, stage) in [("amqp", "its answer"), ("amqps", "the TLS handshake")] {
        let url = format!("{scheme}://guest:guest@127.0.0.1:{port}/%2f");
        let gateway = Gateway::start(&options(&url).set("broker.confirm_timeout", "200ms"));
        gateway.wait_until_away("timeout", stage);
        wait_until("many attempts", SOON, || {
            gateway.connect_failures("timeout") >= 6.0
        });
        // One that dials, and one that ends.
        let threads = dialling(gateway.pid());
        assert!(threads <= 2, "{threads} threads wait for {stage}");
    }
}

fn options(url: &str) -> Options {
    Options::new()
        .set("broker.kind", "amqp")
        .set("broker.url", url)
}

/// Threads of the AMQP client.
fn dialling(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    tasks
        .filter_map(|task| name(task.ok()?))
        .filter(|name| name.starts_with("lapin"))
        .count()
}
