//! OpenStack Swift with its S3 protocol: signatures are checked, and buckets keep versions.

use crate::{have, project, write_manifest};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use trainlock_testing::{Ran, TestContext};

/// The four servers of a Swift of one device. They end when it is dropped.
struct Swift {
    url: String,
    script: PathBuf,
    servers: Vec<Child>,
}

const SECRET: &str = "swift-secret-key";

/// Makes a bucket keep versions.
const VERSIONING: &str = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status></VersioningConfiguration>";

impl Swift {
    fn start(folder: &Path) -> Swift {
        let etc = folder.join("etc");
        fs_err::create_dir_all(&etc).unwrap();
        fs_err::create_dir_all(folder.join("node/d1")).unwrap();
        let write = |name: &str, text: String| fs_err::write(etc.join(name), text).unwrap();
        write("swift.conf", "[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n[storage-policy:0]\nname = gold\ndefault = yes\n".to_owned());
        // All four are held until all are known, so that they differ.
        let sockets: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        drop(sockets);
        let user = Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(user.stdout).unwrap();
        let common = |port: u16| {
            format!(
                "[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nswift_dir = {}\nuser = {}\nworkers = 0\n",
                etc.display(),
                user.trim()
            )
        };
        for (kind, port) in ["account", "container", "object"].into_iter().zip(&ports) {
            let builder = format!("{kind}.builder");
            let device = format!("r1z1-127.0.0.1:{port}/d1");
            for arguments in [vec!["create", "4", "1", "0"], vec!["add", &device, "1"], vec!["rebalance"]] {
                let mut ring = command("swift-ring-builder");
                ring.current_dir(&etc).arg(&builder).args(arguments).stdout(Stdio::null());
                assert!(ring.status().unwrap().success());
            }
            let rest = format!(
                "devices = {}\nmount_check = false\n[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n",
                folder.join("node").display()
            );
            write(&format!("{kind}.conf"), common(*port) + &rest);
        }
        let filters = ["catch_errors", "listing_formats", "copy", "bulk", "slo", "symlink"];
        let filters: String = filters.map(|name| format!("[filter:{name}]\nuse = egg:swift#{name}\n")).concat();
        let rest = format!(
            "[pipeline:main]\npipeline = catch_errors cache listing_formats s3api tempauth copy bulk slo versioned_writes symlink proxy-server\n\
             [app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\naccount_autocreate = true\n\
             [filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:1\n\
             [filter:s3api]\nuse = egg:swift#s3api\ns3_acl = false\nlocation = us-east-1\n\
             [filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = {SECRET} .admin\n\
             [filter:versioned_writes]\nuse = egg:swift#versioned_writes\nallow_versioned_writes = true\nallow_object_versioning = true\n{filters}"
        );
        write("proxy.conf", common(ports[3]) + &rest);
        let start = |kind: &str| {
            let log = fs_err::File::create(folder.join(format!("{kind}.log"))).unwrap().into_parts().0;
            let mut server = command(&format!("swift-{kind}-server"));
            server.arg(etc.join(format!("{kind}.conf"))).stdin(Stdio::null());
            server.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
        };
        let servers = ["account", "container", "object", "proxy"].map(start).into();
        let until = Instant::now() + Duration::from_secs(60);
        for port in &ports {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err() {
                assert!(Instant::now() < until, "Swift does not come up");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let script = folder.join("s3.py");
        fs_err::write(&script, include_str!("s3.py")).unwrap();
        Swift { url: format!("http://127.0.0.1:{}", ports[3]), script, servers }
    }

    /// A signed request; the version that it made.
    fn request(&self, method: &str, target: &str, body: &str) -> String {
        let mut request = command("python3");
        request.arg(&self.script).args([method, target, body]);
        self.configure(&mut request);
        let done = request.output().unwrap();
        assert!(done.status.success(), "{method} {target}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn configure(&self, command: &mut Command) {
        command.env("AWS_ACCESS_KEY_ID", "test:tester").env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.env("AWS_ENDPOINT_URL", &self.url).env("AWS_REGION", "us-east-1");
    }

    fn run(&self, context: &TestContext, args: &[&str]) -> Ran {
        let mut command = context.command(args);
        self.configure(&mut command);
        Ran::of(&mut command)
    }
}

impl Drop for Swift {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// One of Debian's programs, which use Debian's python.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    command
}

fn swift(context: &TestContext) -> Option<Swift> {
    let programs = ["swift-ring-builder", "swift-proxy-server", "swift-account-server", "swift-container-server"];
    (have(&programs) && have(&["swift-object-server", "python3"])).then(|| Swift::start(&context.root().join("swift")))
}

const DATA: &str =
    "[data]\none = { url = \"s3://lab/one.csv\" }\nset = { url = \"s3://lab/set/\", files = [\"**/*.bin\"] }\n";

#[test]
fn versions_of_a_bucket_of_swift() {
    let context = project(DATA);
    let Some(swift) = swift(&context) else { return };
    swift.request("PUT", "/lab", "");
    swift.request("PUT", "/lab?versioning", VERSIONING);
    let one = swift.request("PUT", "/lab/one.csv", "first");
    for key in ["a.bin", "sub/b%20c.bin", "sub/d.bin"] {
        swift.request("PUT", &format!("/lab/set/{key}"), key);
    }
    swift.request("PUT", "/lab/set/readme.md", "not wanted");
    assert!(!one.is_empty(), "the bucket keeps versions");
    swift.run(&context, &["lock"]).expect(0);
    let lock = context.read("train.lock");
    for words in [&*format!("one.csv?versionId={one}\""), "count = 3", "versions = [", "sub/b c.bin"] {
        assert!(lock.contains(words), "{words}\n{lock}");
    }
    for word in [SECRET, "tester", "127.0.0.1", "readme"] {
        assert!(!lock.contains(word), "{word}\n{lock}");
    }
    // A teammate, to whom the same bytes come: also when they are not the newest any more.
    fs_err::remove_dir_all(context.store()).unwrap();
    swift.run(&context, &["fetch", "--locked", "--link"]).expect(0);
    fs_err::remove_file(context.project().join("train.lock")).unwrap();
    swift.run(&context, &["lock"]).expect(0);
    assert_eq!(context.read("train.lock"), lock);
    swift.request("PUT", "/lab/one.csv", "second");
    swift.request("PUT", "/lab/set/a.bin", "another");
    swift.request("DELETE", "/lab/set/sub/d.bin", "");
    fs_err::remove_dir_all(context.store()).unwrap();
    swift.run(&context, &["fetch", "--locked", "--link"]).expect(0);
    assert_eq!((context.read("data/one.csv"), context.read("data/set/a.bin")), ("first".into(), "a.bin".into()));
    assert_eq!(context.read("data/set/sub/d.bin"), "sub/d.bin");
    let updated = swift.run(&context, &["update"]).expect(0);
    assert!(
        updated.stderr.contains("data set") && context.read("train.lock").contains("count = 2"),
        "{}",
        updated.stderr
    );
    // The locked version is deleted for good.
    let lock = context.read("train.lock");
    let (_, version) = lock.split_once("one.csv?versionId=").unwrap();
    let (version, _) = version.split_once('"').unwrap();
    swift.request("DELETE", &format!("/lab/one.csv?versionId={version}"), "");
    swift.request("PUT", "/lab/one.csv", "third");
    fs_err::remove_dir_all(context.store()).unwrap();
    let failed = swift.run(&context, &["fetch", "--locked"]).expect(4);
    assert!(failed.stderr.contains("not found") && failed.stderr.contains("`one`"), "{}", failed.stderr);
}

#[test]
fn refusals_of_swift() {
    let context = project(DATA);
    let Some(swift) = swift(&context) else { return };
    swift.request("PUT", "/lab", "");
    swift.request("PUT", "/lab/one.csv", "first");
    swift.request("PUT", "/lab/set/a.bin", "a");
    swift.run(&context, &["lock"]).expect(0);
    let lock = context.read("train.lock");
    assert!(!lock.contains("versionId") && !lock.contains("versions"), "it keeps none\n{lock}");
    fs_err::remove_dir_all(context.store()).unwrap();
    let with = |secret: Option<&str>| {
        let mut command = context.command(["fetch", "--locked"]);
        swift.configure(&mut command);
        match secret {
            Some(secret) => command.env("AWS_SECRET_ACCESS_KEY", secret),
            None => command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY"),
        };
        Ran::of(&mut command).expect(1)
    };
    let wrong = with(Some("another-secret"));
    for words in ["refuses the credentials", "403", "SignatureDoesNotMatch", "AWS_PROFILE"] {
        assert!(wrong.stderr.contains(words), "{words}\n{}", wrong.stderr);
    }
    assert!(!wrong.stderr.contains("another-secret") && !wrong.stderr.contains("tester"), "{}", wrong.stderr);
    let none = with(None);
    assert!(none.stderr.contains("wants credentials, and there are none"), "{}", none.stderr);
    // A profile of the tools of the cloud.
    let aws = context.home().join(".aws");
    fs_err::create_dir_all(&aws).unwrap();
    fs_err::write(
        aws.join("credentials"),
        format!("[lab]\naws_access_key_id = test:tester\naws_secret_access_key = {SECRET}\n"),
    )
    .unwrap();
    fs_err::write(aws.join("config"), format!("[profile lab]\nregion = us-east-1\nendpoint_url = {}\n", swift.url))
        .unwrap();
    Ran::of(context.command(["fetch", "--locked"]).env("AWS_PROFILE", "lab")).expect(0);
    // Without versions, what changed is an input that failed verification.
    swift.request("PUT", "/lab/one.csv", "other");
    fs_err::remove_dir_all(context.store()).unwrap();
    let failed = swift.run(&context, &["fetch", "--locked"]).expect(4);
    assert!(failed.stderr.contains("expected sha256") && failed.stderr.contains("update one"), "{}", failed.stderr);
    for (url, words) in [("s3://none/x.csv", "there is no bucket s3://none"), ("s3://lab/none.csv", "not found")] {
        write_manifest(&context, &format!("[data]\none = {{ url = \"{url}\" }}\n"));
        let failed = swift.run(&context, &["lock"]).expect(1);
        assert!(failed.stderr.contains(words), "{words}\n{}", failed.stderr);
    }
}

/// What became of what is locked is named, and nothing is downloaded to know it.
#[test]
fn what_became_of_objects_of_swift() {
    let context = project(DATA);
    let Some(swift) = swift(&context) else { return };
    for (bucket, versioned) in [("lab", true), ("plain", false)] {
        write_manifest(&context, &DATA.replace("s3://lab", &format!("s3://{bucket}")));
        swift.request("PUT", &format!("/{bucket}"), "");
        if versioned {
            swift.request("PUT", &format!("/{bucket}?versioning"), VERSIONING);
        }
        let large = "x".repeat(120_000);
        let first = swift.request("PUT", &format!("/{bucket}/one.csv"), "first");
        for (key, body) in [("a.bin", "first"), ("b.bin", &*large), ("c.bin", "third"), ("empty.bin", "")] {
            swift.request("PUT", &format!("/{bucket}/set/{key}"), body);
        }
        swift.run(&context, &["lock"]).expect(0);
        let lock = context.read("train.lock");
        fs_err::remove_file(context.project().join("train.lock")).unwrap();
        swift.run(&context, &["lock"]).expect(0);
        assert_eq!(context.read("train.lock"), lock, "locked again");
        fs_err::remove_dir_all(context.store()).unwrap();
        let same = swift.run(&context, &["outdated"]).expect(0);
        assert!(same.stderr.contains("2 as locked, 0 outdated"), "{}", same.stderr);
        let audit = swift.run(&context, &["audit"]).expect(0);
        assert!(audit.stdout.contains("5 addresses answer as is locked"), "{}", audit.stdout);
        let second = swift.request("PUT", &format!("/{bucket}/one.csv"), if versioned { "other" } else { "longer" });
        swift.request("PUT", &format!("/{bucket}/set/a.bin"), "other");
        swift.request("PUT", &format!("/{bucket}/set/b.bin"), "short");
        swift.request("DELETE", &format!("/{bucket}/set/c.bin"), "");
        swift.request("PUT", &format!("/{bucket}/set/new.bin"), "new");
        swift.request("PUT", &format!("/{bucket}/set/new.txt"), "not wanted");
        let moved = swift.run(&context, &["outdated", "--json"]).expect(0);
        let words = match versioned {
            true => [
                format!("\"locked\":\"version {first}\",\"now\":\"version {second}\""),
                "1 added (new.bin), 2 changed (a.bin, b.bin), 1 gone (c.bin)".to_owned(),
            ],
            false => [
                "\"locked\":\"5 bytes\",\"now\":\"6 bytes\"".to_owned(),
                "1 added (new.bin), 1 changed (b.bin), 1 gone (c.bin)".to_owned(),
            ],
        };
        assert!(words.iter().all(|words| moved.stdout.contains(words)), "{words:?}\n{}", moved.stdout);
        // What is locked is there at its version; where none are kept, it is not.
        let audit = swift.run(&context, &["audit"]).expect(if versioned { 0 } else { 4 });
        let words: &[&str] = match versioned {
            true => &["5 addresses answer as is locked"],
            false => &[
                "one.csv: has 6 bytes, and 5 are locked",
                "b.bin: has 5 bytes, and 120000 are locked",
                "c.bin: the source no longer lists it",
            ],
        };
        assert!(words.iter().all(|words| audit.stdout.contains(words)), "{words:?}\n{}", audit.stdout);
        assert_eq!(context.read("train.lock"), lock, "nothing is written");
        // It is deleted: at its address there is nothing.
        swift.request("DELETE", &format!("/{bucket}/one.csv"), "");
        let gone = swift.run(&context, &["outdated"]).expect(0);
        for words in ["not found", "1 gone (c.bin)"] {
            assert!(gone.stdout.contains(words), "{words}\n{}", gone.stdout);
        }
        // Nothing of it came but a byte of each.
        let store = Command::new("du").args(["-sb", "--apparent-size"]).arg(context.store()).output().unwrap();
        let store = String::from_utf8(store.stdout).unwrap();
        let size: u64 = store.split_whitespace().next().unwrap().parse().unwrap();
        assert!(size < 100_000, "the store has {size} bytes");
    }
    let refused = |change: &dyn Fn(&mut Command), words: &[&str]| {
        for (args, code) in [(["outdated"], 1), (["audit"], 0)] {
            let mut command = context.command(args);
            swift.configure(&mut command);
            change(&mut command);
            let ran = Ran::of(&mut command).expect(code);
            let said = if code == 0 { &ran.stdout } else { &ran.stderr };
            assert!(words.iter().all(|words| said.matches(words).count() >= 2), "{words:?}\n{said}");
            assert!(!said.contains("another-secret"), "{said}");
        }
    };
    refused(
        &|command| {
            command.env("AWS_SECRET_ACCESS_KEY", "another-secret");
        },
        &["it refuses the credentials (status 403)", "SignatureDoesNotMatch"],
    );
    refused(
        &|command| {
            command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        },
        &["it wants credentials, and there are none"],
    );
    write_manifest(&context, &DATA.replace("s3://lab", "s3://gone"));
    swift.request("PUT", "/gone", "");
    swift.request("PUT", "/gone/one.csv", "first");
    swift.request("PUT", "/gone/set/a.bin", "first");
    swift.run(&context, &["lock"]).expect(0);
    for target in ["/gone/one.csv", "/gone/set/a.bin", "/gone"] {
        swift.request("DELETE", target, "");
    }
    refused(&|_| (), &["there is no bucket s3://gone"]);
}

/// A program of the profile prints the credentials, with which the server's check of signatures passes.
#[test]
fn a_credential_process_for_swift() {
    let context = project("[data]\none = { url = \"s3://lab/one.csv\" }\n");
    let Some(swift) = swift(&context) else { return };
    swift.request("PUT", "/lab", "");
    swift.request("PUT", "/lab/one.csv", "first");
    let aws = context.home().join(".aws");
    fs_err::create_dir_all(&aws).unwrap();
    let printed = format!("{{\"Version\": 1, \"AccessKeyId\": \"test:tester\", \"SecretAccessKey\": \"{SECRET}\"}}");
    let config = format!(
        "[profile lab]\nregion = us-east-1\nendpoint_url = {}\ncredential_process = /bin/sh -c 'echo \"$0\"' '{printed}'\n",
        swift.url
    );
    fs_err::write(aws.join("config"), config).unwrap();
    Ran::of(context.command(["fetch", "--link"]).env("AWS_PROFILE", "lab")).expect(0);
    assert_eq!(context.read("data/one.csv"), "first");
    assert!(!context.read("train.lock").contains(SECRET));
}
