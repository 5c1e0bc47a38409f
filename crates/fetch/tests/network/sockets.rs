//! The budget of connections, kept in sockets: idle ones and such that are broken off count too.

use super::*;
use std::collections::BTreeMap;
use trainlock_fetch::ObjectSettings;
use trainlock_testing::BucketServer;

/// Of so many connections in all, and so many to one host, with this server in the place of the stores'.
fn within(all: usize, each_host: usize, server: &BucketServer) -> Settings {
    let s3 = [("aws_endpoint_url", server.url()), ("aws_region", "here-1".to_owned())];
    let s3: BTreeMap<String, String> = s3.map(|(key, value)| (key.to_owned(), value)).into();
    let objects = ObjectSettings {
        s3: s3.into_iter().chain([("aws_skip_signature".to_owned(), "true".to_owned())]).collect(),
        ..ObjectSettings::default()
    };
    Settings { max_connections: all, host_connections: each_host, objects, retries: 8, ..settings() }
}

/// The address of a key of the bucket `lab`: by its store's protocol, and as a file of a web server.
const KINDS: [&str; 2] = ["s3://lab", "plain"];

fn address(kind: &str, server: &BucketServer, key: &str) -> String {
    match kind {
        "plain" => format!("{}/lab/{key}", server.url()),
        bucket => format!("{bucket}/{key}"),
    }
}

fn small(i: usize) -> Vec<u8> {
    format!("{i}\n").repeat(500).into_bytes()
}

/// Brings all of it into a new store.
fn bring(settings: Settings, wants: &[Want]) {
    let place = Place::new();
    for result in Fetcher::new(settings, Events::none()).bring_all(&place.session, wants) {
        result.unwrap();
    }
    assert_eq!(place.objects(), wants.len());
}

#[test]
fn many_small_files_keep_to_their_connections() {
    for kind in KINDS {
        let server = BucketServer::start();
        server.bucket("lab", false);
        (0..400).for_each(|i| server.put("lab", &i.to_string(), small(i)));
        let wants: Vec<Want> = (0..400).map(|i| want(&[&address(kind, &server, &i.to_string())], &small(i))).collect();
        bring(within(24, 6, &server), &wants);
        assert!((2..=6).contains(&server.most_sockets()), "{kind}: {}", server.most_sockets());
        // Each is used again and again.
        assert!(server.sockets() <= 6, "{kind}: {}", server.sockets());
    }
}

/// Each fifth file is first asked for where it is not, and each seventh answer breaks off.
#[test]
fn so_do_those_that_fail_and_come_again() {
    for kind in KINDS {
        let server = BucketServer::start();
        server.bucket("lab", false);
        server.fail(20);
        server.break_off(7);
        (0..300).for_each(|i| server.put("lab", &i.to_string(), small(i)));
        let wants: Vec<Want> = (0..300)
            .map(|i| {
                let (none, there) = (address(kind, &server, "none"), address(kind, &server, &i.to_string()));
                let urls = [&*none, &*there];
                want(if i % 5 == 0 { &urls } else { &urls[1..] }, &small(i))
            })
            .collect();
        bring(within(24, 5, &server), &wants);
        assert!((2..=5).contains(&server.most_sockets()), "{kind}: {}", server.most_sockets());
        let (sockets, requests) = (server.sockets(), server.requests().len());
        assert!(sockets < requests / 2, "{kind}: {sockets} for {requests} requests");
    }
}

#[test]
fn a_large_file_in_parts_has_no_more() {
    let large: Vec<u8> = (0..24 << 18_u32).flat_map(u32::to_le_bytes).collect();
    for kind in KINDS {
        let server = BucketServer::start();
        server.bucket("lab", false);
        server.slow_down();
        server.put("lab", "large.bin", large.clone());
        (0..40).for_each(|i| server.put("lab", &i.to_string(), small(i)));
        let mut wants = vec![want(&[&address(kind, &server, "large.bin")], &large)];
        wants.extend((0..40).map(|i| want(&[&address(kind, &server, &i.to_string())], &small(i))));
        bring(within(24, 4, &server), &wants);
        assert!((2..=4).contains(&server.most_sockets()), "{kind}: {}", server.most_sockets());
        let parts = server.requests().iter().filter(|target| target.ends_with("large.bin")).count();
        assert!(parts >= 3, "{kind}: it came in {parts} parts");
    }
}

/// An idle connection to one host makes room for one to another, and several buckets of one server are one host.
#[test]
fn those_to_other_hosts_count_in_all() {
    let servers = [BucketServer::start(), BucketServer::start(), BucketServer::start()];
    let mut wants = Vec::new();
    for i in 0..300 {
        let server = &servers[i % 3];
        server.put("lab", &i.to_string(), small(i));
        wants.push(want(&[&address("plain", server, &i.to_string())], &small(i)));
    }
    for bucket in ["one", "two", "three"] {
        servers[0].put(bucket, "x", bucket);
        wants.push(want(&[&format!("s3://{bucket}/x")], bucket.as_bytes()));
    }
    bring(within(5, 4, &servers[0]), &wants);
    let most: Vec<usize> = servers.iter().map(BucketServer::most_sockets).collect();
    assert!(most.iter().all(|most| (1..=4).contains(most)), "{most:?}");
    // One after the other they leave room for each other.
    let server = BucketServer::start();
    for name in ["a", "b"] {
        server.put(name, "x", name);
    }
    let place = Place::new();
    let fetcher = Fetcher::new(within(1, 1, &server), Events::none());
    for (host, name) in [("127.0.0.1", "a"), ("localhost", "b"), ("127.0.0.1", "a")] {
        let url = format!("{}/{name}/x", server.url()).replace("127.0.0.1", host);
        fetcher.bring_all(&place.session, &[want(&[&url], name.as_bytes())]).remove(0).unwrap();
    }
    assert_eq!((server.most_sockets(), server.sockets()), (1, 2));
}

/// Resets, silences, redirects and answers that nobody reads.
#[test]
fn faults_leave_none_behind() {
    let server = FaultServer::start();
    let faults = [
        Fault::Reset,
        Fault::ResetAfter(1000),
        Fault::Truncate(1000),
        Fault::Stall(1000),
        Fault::Status(503),
        Fault::Garbage,
        Fault::Close,
        Fault::Extra(b"more".to_vec()),
    ];
    let mut wants = Vec::new();
    for i in 0..120 {
        let path = format!("/{i}");
        server.script(&path, small(i), [faults[i % faults.len()].clone(), Fault::Ok]);
        server.script(&format!("/to{path}"), "", [Fault::Redirect(server.url(&path))]);
        // What is too long is not tried again, but elsewhere.
        let urls = [server.url("/none"), server.url(&format!("/to{path}")), server.url(&path)];
        wants.push(want(&urls.iter().map(String::as_str).collect::<Vec<_>>(), &small(i)));
    }
    bring(Settings { max_connections: 24, host_connections: 4, ..stalling() }, &wants);
    assert!((2..=4).contains(&server.most_sockets()), "{}", server.most_sockets());
}
