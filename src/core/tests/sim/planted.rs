//! The planted bugs still fit the sources. `mutants.sh` takes too long for every run, and a patch that does not fit finds nothing.

use std::fs::read_to_string;
use std::path::Path;

/// The text that a hunk of a patch expects to find.
fn expected(hunk: &str) -> String {
    let lines = hunk.lines().skip(1).filter(|line| line.is_empty() || line.starts_with([' ', '-']));
    lines.map(|line| format!("{}\n", line.get(1..).unwrap_or_default())).collect()
}

#[test]
fn every_planted_bug_fits_the_sources() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut count, mut stale) = (0, Vec::new());
    for entry in core.join("tests/sim/planted").read_dir().unwrap() {
        let patch = entry.unwrap().path();
        let text = read_to_string(&patch).unwrap();
        for file in text.split("--- a/src/core/").skip(1) {
            let source = read_to_string(core.join(file.lines().next().unwrap())).unwrap();
            let hunks = file.split("\n@@ ").skip(1);
            count += 1;
            if !hunks.clone().all(|hunk| source.contains(&expected(hunk))) || hunks.count() == 0 {
                stale.push(patch.clone());
            }
        }
    }
    assert!(count > 60 && stale.is_empty(), "{count} patched files; make these patches again: {stale:#?}");
}
