//! What of the images can be checked without building them.

use std::{collections::BTreeSet, process::Command};

use runner::manifests::render;

use super::{GOOD, set::function, tests::project};

/// The libraries of the images' base, distroless cc, that a Rust binary may need.
const BASE: [&str; 8] = [
    "ld-linux-aarch64.so.1",
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "linux-vdso.so.1",
];

/// The test itself is linked from what the functions are linked from, but for `tls`, with which
/// the images are built: that has OpenSSL from source and linked in (rdkafka's `ssl-vendored`),
/// so it should need no library more. That it does not, only a built image shows.
#[test]
fn what_we_link_needs_no_library_that_the_images_lack() {
    let own = std::env::current_exe().unwrap();
    let ldd = Command::new("ldd").arg(own).output().unwrap();
    let listed = String::from_utf8(ldd.stdout).unwrap();
    let needed: BTreeSet<_> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.rsplit('/').next())
        .collect();
    assert!(needed.contains("libc.so.6"), "{listed}");
    let lacking: Vec<_> = needed.difference(&BTreeSet::from(BASE)).copied().collect();
    assert!(lacking.is_empty(), "not in the images: {lacking:?}");
}

#[test]
fn each_image_that_is_deployed_is_a_stage_of_the_dockerfile() {
    let dockerfile = std::fs::read_to_string(project().join("knative/Dockerfile")).unwrap();
    let stages: BTreeSet<_> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM function AS "))
        .collect();
    let mut deployed = BTreeSet::new();
    for (_, good) in GOOD {
        let set = super::Set::new(render(&project().join(good)).unwrap());
        for (_, container, _) in set.containers() {
            deployed.insert(function(container).to_owned());
        }
    }
    assert_eq!(deployed, stages.into_iter().map(str::to_owned).collect());
}
