//! Archives of the real programs come out as `tar xf` has them.

use crate::{have, project};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use trainlock_testing::TestContext;

/// What counts of a file: its bytes and whether it can be executed, or where a link leads.
type Listed = BTreeMap<String, (Vec<u8>, bool)>;

fn list(folder: &Path, name: &str, listed: &mut Listed) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{name}/{}", path.file_name().unwrap().to_string_lossy());
        let kind = fs_err::symlink_metadata(&path).unwrap();
        if kind.is_dir() {
            list(&path, &name, listed);
        } else if kind.is_symlink() {
            let to = fs_err::read_link(&path).unwrap().to_string_lossy().into_owned();
            listed.insert(name, (format!("-> {to}").into_bytes(), false));
        } else {
            listed.insert(name, (fs_err::read(&path).unwrap(), kind.permissions().mode() & 0o100 != 0));
        }
    }
}

/// A shell in a folder with a tree that has something of everything.
fn tree() -> TestContext {
    let shell = TestContext::new("/bin/sh");
    let long = "a-rather-long-name-of-a-folder/".repeat(6);
    shell
        .write("in/plain.txt", "plain\n")
        .write("in/größe und maß.txt", "umlauts\n")
        .write("in/empty", "")
        .write("in/run.sh", "#!/bin/sh\n")
        .write("in/deep/er/large.bin", vec![7; 300_000])
        .write(&format!("in/{long}end.txt"), "far away\n")
        .write("in/deep/noise", (0..70_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<u8>>());
    let prepare = "chmod 755 in/run.sh; ln -s ../plain.txt in/deep/link; ln in/plain.txt in/deep/hard";
    shell.run(["-ec", prepare]).expect(0);
    shell
}

#[test]
fn every_program_and_format() {
    if !have(&["tar", "gzip", "bzip2", "xz", "zstd", "zip"]) {
        return;
    }
    let shell = tree();
    let make = [
        ("gnu.tar", "tar --format=gnu -cf gnu.tar in"),
        ("pax.tar", "tar --format=pax -cf pax.tar in"),
        ("dot.tar", "tar -cf dot.tar ./in"),
        ("a.tar.gz", "tar -czf a.tar.gz in"),
        ("pieces.tgz", "tar -cf - in | split -b 60000 --filter='gzip -c' - >pieces.tgz"),
        ("a.tar.bz2", "tar -cjf a.tar.bz2 in"),
        ("a.tar.xz", "tar -cJf a.tar.xz in"),
        ("blocks.tar.xz", "tar -cf - in | xz -T2 --block-size=50000 --check=sha256 >blocks.tar.xz"),
        ("a.tar.zst", "tar -cf - in | zstd -q -19 >a.tar.zst"),
        ("long.tar.zst", "tar -cf - in | zstd -q --long=27 >long.tar.zst"),
        ("a.zip", "zip -qry a.zip in"),
        ("stored.zip", "zip -qry0 stored.zip in"),
    ];
    for (name, command) in make {
        shell.run(["-ec", command]).expect(0);
        shell.run(["-ec", "rm -rf out; mkdir out"]).expect(0);
        if name.ends_with(".zip") {
            // There is no `tar xf` for these: the tree itself is what should come out.
            shell.run(["-ec", "cp -a in out/"]).expect(0);
        } else {
            shell.run(["-ec", "tar -xf \"$0\" -C out", name]).expect(0);
        }
        let mut expected = Listed::new();
        list(&shell.project().join("out"), "", &mut expected);
        assert_eq!(expected.len(), 9, "{:?}", expected.keys());
        let url = format!("file://{}/{name}", shell.project().display());
        let context = project(&format!("[data]\nall = {{ url = \"{url}\", unpack = true, to = \"all\" }}\n"));
        context.run(["fetch", "--link"]).expect(0);
        let mut found = Listed::new();
        list(&context.project().join("all"), "", &mut found);
        assert!(found == expected, "{name}: {:?}\n{:?}", found.keys(), expected.keys());
        context.run(["store", "verify"]).expect(0);
    }
}
