//! Certificates and authorities change while associations run: those go on, new ones get what the files
//! hold now, and a file that is broken changes nothing.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::support::certificates::{Certificates, Pair, Subject, secured};
use crate::support::tunnel::Tunnel;
use crate::support::{Gateway, RawPeer, SOON, peers, wait_until};

/// Three looks at the files, on a busy machine.
const NOTICED: Duration = Duration::from_secs(60);

#[test]
fn nobody_notices_who_need_not() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    if !peers::available("echoscu") {
        return;
    }
    let (first, second) = (
        certificates.authority("first"),
        certificates.authority("second"),
    );
    let server = certificates.server("first", "gateway");
    let (ct1, ct2) = (
        certificates.client("first", "ct1"),
        certificates.client("second", "ct2"),
    );
    // What a mounted secret looks like: files that are replaced by renaming.
    let mounted = |name: &str| certificates.path(&format!("mounted-{name}"), "pem");
    let replace = |name: &str, text: &[u8]| {
        let new = certificates.path("new", "pem");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, mounted(name)).unwrap();
    };
    let read = |file: &PathBuf| std::fs::read(file).unwrap();
    replace("certificate", &read(&server.certificate));
    replace("key", &read(&server.key));
    replace("ca", &[read(&first), read(&second)].concat());
    let pair = Pair {
        certificate: mounted("certificate"),
        key: mounted("key"),
    };
    let gateway = Gateway::start(&secured(&pair, [mounted("ca")]));
    let port = gateway.tls_port;
    let reloads = |result: &str| {
        let labels = [("listener", "dicom"), ("result", result)];
        gateway.metric("tls_reloads_total", &labels)
    };
    let expiry = || gateway.metric("tls_certificate_expiry_timestamp_seconds", &[]);
    let echo = |client: &Pair| {
        let mut command = Command::new("echoscu");
        command.args(["-aet", "CT", "-aec", "PACSGATEWAY"]);
        command.args(client.dcmtk(&first));
        let output = peers::run(command.args(["127.0.0.1", &port.to_string()]));
        output.status.success()
    };
    let tunnel = Tunnel::to(port, &ct1, first.clone());
    let mut running = RawPeer::associate(tunnel.port, "CT1", &[]);
    let (over, echoes) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(echo(&ct2), "a sender that is trusted all the time");
                echoes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ended = EndOfScope(&over);

        // A certificate that lives longer, with another key.
        let before = expiry();
        let subject = Subject {
            common_name: "gateway",
            names: "DNS:localhost,IP:127.0.0.1",
            usage: "serverAuth",
            until: "20491231000000Z",
            ..Subject::default()
        };
        let renewed = certificates.issue("first", "renewed", &subject);
        replace("key", &read(&renewed.key));
        replace("certificate", &read(&renewed.certificate));
        wait_until("the new certificate", NOTICED, || expiry() > before);
        let mut look = Command::new("openssl");
        look.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]);
        let shown = String::from_utf8(peers::run(&mut look).stdout).unwrap();
        let pem = String::from_utf8(read(&renewed.certificate)).unwrap();
        assert!(shown.contains(pem.trim()), "{shown}");
        assert_eq!(running.echo().unwrap(), 0);
        assert!(echo(&ct1));

        // An authority goes.
        let earlier = reloads("ok");
        replace("ca", &read(&second));
        wait_until("the shorter list", NOTICED, || reloads("ok") > earlier);
        assert!(!echo(&ct1), "its authority is gone");
        assert_eq!(running.echo().unwrap(), 0, "what runs goes on");

        // Rubbish, and a key that is another's.
        let (good, earlier) = (reloads("ok"), reloads("failed"));
        replace("certificate", b"nothing of use");
        wait_until("the failure in the metrics", NOTICED, || {
            reloads("failed") > earlier
        });
        replace("certificate", &read(&server.certificate));
        wait_until("the next failure", NOTICED, || {
            reloads("failed") > earlier + 1.0
        });
        assert!(echo(&ct2), "the last good one is served");
        assert_eq!((expiry(), reloads("ok")), (2_524_521_600.0, good));
        drop(ended);
        load.join().unwrap();
    });
    assert_eq!(running.echo().unwrap(), 0);
    running.release();
    assert!(echoes.load(Ordering::Relaxed) > 10);
    let told = || {
        gateway
            .log()
            .matches("\"key\":\"dicom.tls.certificate\"")
            .count()
    };
    wait_until("both lines", SOON, || told() >= 2);
    assert_eq!(told(), 2, "once per change");
}

/// Ends the load also when the scenario fails.
struct EndOfScope<'a>(&'a AtomicBool);

impl Drop for EndOfScope<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
