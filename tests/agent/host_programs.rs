//! Programs of this host inside a container, whose image has a busybox only: the host's directories with the program and its
//! libraries are mounted read-only.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// An interpreter of this host, and the directories that it needs, apart from those of the system.
#[derive(Debug)]
pub(super) struct Interpreter {
    pub(super) path: String,
    directories: BTreeSet<String>,
}

/// Prints the real path of Python, and the directories of its library and of botocore.
const PYTHON: &str = "import os, sys, botocore\n\
    for path in [sys.executable, os.path.realpath(sys.executable), sys.prefix, sys.base_prefix, botocore.__path__[0]]: print(path)";
/// The directories of the system, with every program of packages. On most systems the others are links into the first.
const SYSTEM: [&str; 3] = ["/usr", "/lib", "/lib64"];

impl Interpreter {
    /// The first of these Pythons that has botocore.
    pub(super) fn python(candidates: &[String]) -> Option<Self> {
        candidates.iter().find_map(|python| {
            let shown = lines(python, &["-c", PYTHON])?;
            let [path, real, prefix, base, botocore] = shown.try_into().ok()?;
            let parent = |path: &str| Path::new(path).parent().map(|parent| parent.to_string_lossy().into_owned());
            let directories = [parent(&path), parent(&real), Some(prefix), Some(base), parent(&botocore)];
            Some(Self { path, directories: directories.into_iter().flatten().collect() })
        })
    }

    /// The first of these programs that is Node.js, which shall also see this directory.
    pub(super) fn node(candidates: &[String], directory: &str) -> Option<Self> {
        candidates.iter().find_map(|node| {
            let shown = lines(node, &["-p", "require('fs').realpathSync(process.execPath)"])?;
            let path = shown.into_iter().next()?;
            let parent = Path::new(&path).parent()?.to_string_lossy().into_owned();
            Some(Self { path, directories: [parent, directory.to_owned()].into() })
        })
    }
}

fn lines(program: &str, arguments: &[&str]) -> Option<Vec<String>> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.lines().map(str::to_owned).collect())
}

/// The interpreter of the aws CLI, which has botocore, and the `python3` of this host.
pub(super) fn pythons() -> Vec<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let scripts =
        path.split(':').filter_map(|directory| std::fs::read_to_string(Path::new(directory).join("aws")).ok());
    let interpreters = scripts.filter_map(|script| Some(script.lines().next()?.strip_prefix("#!")?.trim().to_owned()));
    let is_python = |line: &String| line.contains("python") && !line.contains(' ');
    interpreters.filter(is_python).chain(["python3".to_owned()]).collect()
}

/// Has the only container of a definition see the programs, and be large enough for them.
pub(super) fn mount(definition: &mut Value, programs: &[&Interpreter]) {
    let own = programs.iter().flat_map(|program| &program.directories).map(String::as_str);
    let own = own.filter(|path| !path.starts_with("/usr/") && *path != "/usr/bin" && *path != "/usr");
    let paths: BTreeSet<&str> = SYSTEM.into_iter().filter(|path| Path::new(path).exists()).chain(own).collect();
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    for (number, path) in paths.into_iter().enumerate() {
        let name = format!("programs-{number}");
        volumes.push(json!({"name": name, "host": {"sourcePath": path}}));
        mounts.push(json!({"sourceVolume": name, "containerPath": path, "readOnly": true}));
    }
    definition["volumes"] = json!(volumes);
    let container = &mut definition["containerDefinitions"][0];
    container["mountPoints"] = json!(mounts);
    container["memory"] = json!(300);
}
