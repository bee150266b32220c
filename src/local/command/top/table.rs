//! The lines of `top`. Pure. This module owns the columns, their order, and what is said in the place of values. Invariants: no line
//! is longer than the terminal is wide; a value that was not sent, or is old, is a dash.

use super::options::Sort;
use crate::time::iso_time;
use crate::top::{Top, TopContainer, TopInstance};
use ecs_core::model::text::cleaned;
use std::collections::BTreeSet;

/// The age in seconds from which on values say nothing about now: two messages are missing.
const OLD: f64 = 50.0;
/// The age in seconds of a running task from which on its values must have come.
const SETTLED: f64 = 60.0;
/// Number of digits of a task's id that are shown. The last ones: the ids of a session begin alike.
const ID_DIGITS: usize = 8;
/// The space between two columns.
const GAP: &str = "  ";
/// The longest name in a column, in characters.
const MAX_NAME: usize = 40;
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const BOLD: u8 = 1;

/// What the last line on a terminal says.
const LEGEND: &str = "averages of 20 s, from telemetry; CPU: of the whole machine; q ends";

/// A column.
struct Column {
    title: &'static str,
    is_right: bool,
    /// If the terminal is too narrow, the column with the largest rank is left out first. 0: it stays.
    rank: u8,
    cell: fn(&TopContainer) -> Cell,
}

/// A text, and its colour; 0: none.
struct Cell(String, u8);

/// A line, divided into parts of one colour.
type Parts = Vec<Cell>;

const COLUMNS: [Column; 13] = [
    Column { title: "TASK", is_right: false, rank: 0, cell: |c| plain_cell(task(c)) },
    Column { title: "CONTAINER", is_right: false, rank: 0, cell: |c| plain_cell(name(&c.container)) },
    Column { title: "CLUSTER", is_right: false, rank: 1, cell: |c| plain_cell(name(&c.cluster)) },
    Column { title: "INSTANCE", is_right: false, rank: 2, cell: |c| plain_cell(short(&c.instance_arn)) },
    Column { title: "CPU %", is_right: true, rank: 0, cell: |c| value(c, c.cpu_percent, |cpu| format!("{cpu:.1}")) },
    Column { title: "MEMORY", is_right: true, rank: 0, cell: memory },
    Column { title: "RX/s", is_right: true, rank: 4, cell: |c| value(c, c.received_bytes_per_second, size) },
    Column { title: "TX/s", is_right: true, rank: 4, cell: |c| value(c, c.sent_bytes_per_second, size) },
    Column { title: "READ", is_right: true, rank: 5, cell: |c| value(c, c.read_bytes, |bytes| size(bytes as f64)) },
    Column {
        title: "WRITTEN",
        is_right: true,
        rank: 5,
        cell: |c| value(c, c.written_bytes, |bytes| size(bytes as f64)),
    },
    Column {
        title: "RESTARTS",
        is_right: true,
        rank: 3,
        cell: |c| value(c, c.restarts, |restarts| restarts.to_string()),
    },
    Column { title: "HEALTH", is_right: false, rank: 0, cell: health },
    Column { title: "STATUS", is_right: false, rank: 0, cell: status },
];

/// The lines for a terminal of this size.
pub(super) fn on_terminal(
    top: &Top,
    problems: &[String],
    sort: Sort,
    columns: usize,
    rows: usize,
    has_colours: bool,
) -> Vec<String> {
    // In the last column, some terminals begin the next line.
    let width = columns.saturating_sub(1).max(1);
    let mut lines = vec![vec![Cell(title(top), BOLD)]];
    lines.extend(notices(top, problems).into_iter().map(|text| vec![Cell(text, YELLOW)]));
    lines.push(Vec::new());
    let table = table(top, sort, Some(width));
    let room = rows.saturating_sub(lines.len() + 1).max(1);
    let (all, hidden) = (table.len(), table.len().saturating_sub(room));
    // The line that says so needs a row, too.
    let shown = if hidden > 0 { all - hidden - 1 } else { all };
    lines.extend(table.into_iter().take(shown));
    if hidden > 0 {
        lines.push(vec![Cell(format!("{} more: make the window larger", all - shown), YELLOW)]);
    }
    lines.resize_with(rows.saturating_sub(1).max(lines.len()), Vec::new);
    lines.push(vec![Cell(LEGEND.to_owned(), 0)]);
    lines.truncate(rows.max(1));
    lines.into_iter().map(|line| drawn(line, width, has_colours)).collect()
}

/// The lines for a file or a pipe.
pub(super) fn plain(top: &Top, problems: &[String], sort: Sort) -> Vec<String> {
    let table = table(top, sort, None).into_iter();
    let lines = table.map(|line| drawn(line, usize::MAX, false).trim_end().to_owned());
    lines.chain(notices(top, problems)).collect()
}

fn title(top: &Top) -> String {
    let distinct = |names: BTreeSet<&str>| names.len();
    let tasks = distinct(top.containers.iter().map(|c| c.task_arn.as_str()).collect());
    let clusters: BTreeSet<String> = top.instances.iter().map(|instance| name(&instance.cluster)).collect();
    let where_to = match clusters.len() {
        0 => String::new(),
        1 => format!("  cluster {}", clusters.into_iter().collect::<String>()),
        several => format!("  {several} clusters"),
    };
    let age = top.containers.iter().filter_map(|c| c.metrics_age_seconds).min_by(f64::total_cmp);
    let age = age.map(|age| format!("  values {age:.0} s old")).unwrap_or_default();
    // Without the date: a person looks at it now.
    let (containers, at) = (top.containers.len(), iso_time(top.at));
    let time = at.split_once('T').map_or(at.as_str(), |(_, time)| time);
    // What is longest comes last, where a narrow terminal cuts it.
    format!("ecs-local top {time}{age}  tasks {tasks}  containers {containers}{where_to}")
}

/// What a person should know about the values, and about those that are missing.
fn notices(top: &Top, problems: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = problems.iter().map(|problem| cleaned(problem)).collect();
    if top.instances.is_empty() && problems.is_empty() {
        lines.push("no agent is registered: start one with the settings that `ecs-local serve` has printed".to_owned());
    }
    for instance in &top.instances {
        lines.extend(notice(top, instance).map(|text| format!("instance {}: {text}", short(&instance.arn))));
    }
    if top.containers.is_empty() && !top.instances.is_empty() {
        lines.push("no task runs".to_owned());
    }
    lines
}

fn notice(top: &Top, instance: &TopInstance) -> Option<String> {
    let own = || top.containers.iter().filter(|container| container.instance_arn == instance.arn);
    let has_settled = own().any(|container| container.running_seconds.is_some_and(|seconds| seconds > SETTLED));
    let waiting = own().filter(|container| container.status == "RUNNING" && container.metrics_age_seconds.is_none());
    match instance.metrics_age_seconds {
        _ if !instance.connected => Some("its agent is not connected".to_owned()),
        None => Some("telemetry comes every 20 s; waiting for the first message".to_owned()),
        Some(age) if age > OLD => Some(format!("no telemetry for {age:.0} s; the agent's log says why")),
        Some(_) if instance.is_idle && has_settled => Some(
            "its agent measures nothing, though tasks run: metrics are disabled (ECS_DISABLE_METRICS=true)".to_owned(),
        ),
        Some(_) => match waiting.count() {
            0 => None,
            1 => Some("telemetry comes every 20 s; waiting for the values of a container".to_owned()),
            count => Some(format!("telemetry comes every 20 s; waiting for the values of {count} containers")),
        },
    }
}

/// The heading and a line for each container. With a width, columns are left out until the rest fits.
fn table(top: &Top, sort: Sort, width: Option<usize>) -> Vec<Parts> {
    if top.containers.is_empty() {
        return Vec::new();
    }
    let mut containers: Vec<&TopContainer> = top.containers.iter().collect();
    order(&mut containers, sort);
    let several =
        |text: fn(&TopContainer) -> &str| containers.iter().map(|c| text(c)).collect::<BTreeSet<_>>().len() > 1;
    let (clusters, instances) = (several(|c| &c.cluster), several(|c| &c.instance_arn));
    let columns = COLUMNS.iter().filter(|column| match column.title {
        "CLUSTER" => clusters,
        "INSTANCE" => instances,
        _ => true,
    });
    let mut columns: Vec<(&Column, usize)> = columns
        .map(|column| {
            let cells = containers.iter().map(|container| length(&(column.cell)(container).0));
            (column, cells.chain([length(column.title)]).max().unwrap_or(0))
        })
        .collect();
    if let Some(width) = width {
        let total = |columns: &[(&Column, usize)]| columns.iter().map(|(_, width)| width + GAP.len()).sum::<usize>();
        while total(&columns) > width + GAP.len()
            && let Some(rank) = columns.iter().map(|(column, _)| column.rank).max().filter(|rank| *rank > 0)
        {
            columns.retain(|(column, _)| column.rank != rank);
        }
    }
    let heading = |column: &Column| Cell(column.title.to_owned(), BOLD);
    let mut lines = vec![line(&columns, heading)];
    lines.extend(containers.into_iter().map(|container| line(&columns, |column| (column.cell)(container))));
    lines
}

fn line(columns: &[(&Column, usize)], cell: impl Fn(&Column) -> Cell) -> Parts {
    let mut parts = Parts::new();
    for (number, (column, width)) in columns.iter().enumerate() {
        let Cell(text, colour) = cell(column);
        let blank = " ".repeat(width.saturating_sub(length(&text)));
        let gap = if number > 0 { GAP } else { "" };
        let (before, after) = if column.is_right { (blank, String::new()) } else { (String::new(), blank) };
        parts.extend([Cell(format!("{gap}{before}"), 0), Cell(text, colour), Cell(after, 0)]);
    }
    parts
}

/// A line as it is written: no longer than this.
fn drawn(parts: Parts, width: usize, has_colours: bool) -> String {
    let (mut text, mut room) = (String::new(), width);
    for Cell(part, colour) in parts {
        let part: String = part.chars().take(room).collect();
        room -= length(&part);
        if has_colours && colour > 0 && !part.is_empty() {
            text += &format!("\x1b[{colour}m{part}\x1b[0m");
        } else {
            text += &part;
        }
    }
    text
}

fn order(containers: &mut [&TopContainer], sort: Sort) {
    let names = |c: &TopContainer| (c.definition.clone(), c.container.clone(), c.task_arn.clone());
    containers.sort_by_cached_key(|container| names(container));
    // The sort is stable, so those that use as much stay in the order of their names.
    let used = |figure: fn(&TopContainer) -> Option<f64>| {
        move |left: &&TopContainer, right: &&TopContainer| {
            let or_less = |c: &TopContainer| figure(c).filter(|_| !is_old(c)).unwrap_or(-1.0);
            or_less(right).total_cmp(&or_less(left))
        }
    };
    match sort {
        Sort::Cpu => containers.sort_by(used(|c| c.cpu_percent)),
        Sort::Memory => containers.sort_by(used(|c| c.memory_mib)),
        Sort::Name => {}
    }
}

fn is_old(container: &TopContainer) -> bool {
    container.metrics_age_seconds.is_none_or(|age| age > OLD)
}

fn plain_cell(text: String) -> Cell {
    Cell(text, 0)
}

/// A value from telemetry.
fn value<T>(container: &TopContainer, found: Option<T>, shown: impl Fn(T) -> String) -> Cell {
    plain_cell(found.filter(|_| !is_old(container)).map_or_else(|| "-".to_owned(), shown))
}

fn task(container: &TopContainer) -> String {
    format!("{} {}", name(&container.definition), short(&container.task_arn))
}

fn memory(container: &TopContainer) -> Cell {
    let Cell(used, colour) = value(container, container.memory_mib, |mib| format!("{mib:.0}"));
    match container.memory_limit_mib {
        Some(limit) => Cell(format!("{used}/{limit} MiB"), colour),
        None if used == "-" => Cell(used, colour),
        None => Cell(format!("{used} MiB"), colour),
    }
}

fn health(container: &TopContainer) -> Cell {
    match container.health.as_deref() {
        None => plain_cell("-".to_owned()),
        Some("HEALTHY") => Cell("HEALTHY".to_owned(), GREEN),
        Some("UNHEALTHY") => Cell("UNHEALTHY".to_owned(), RED),
        Some(other) => Cell(name(other), YELLOW),
    }
}

fn status(container: &TopContainer) -> Cell {
    match container.exit_code.filter(|_| container.status == "STOPPED") {
        Some(code) => Cell(format!("STOPPED, exit code {code}"), if code == 0 { 0 } else { RED }),
        None if container.is_stopping && container.status != "STOPPED" => Cell("STOPPING".to_owned(), YELLOW),
        None => plain_cell(name(&container.status)),
    }
}

/// A name of fit length, without control characters.
fn name(text: &str) -> String {
    let text = cleaned(text);
    match length(&text) > MAX_NAME {
        true => text.chars().take(MAX_NAME - 1).chain(['…']).collect(),
        false => text,
    }
}

/// The last digits of an id, which is the last part of an ARN.
fn short(arn: &str) -> String {
    let id = cleaned(arn.rsplit('/').next().unwrap_or(arn));
    id.chars().skip(length(&id).saturating_sub(ID_DIGITS)).collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// A number of bytes with three digits or more, as in `1.5 KiB`.
fn size(bytes: f64) -> String {
    let mut left = bytes.max(0.0);
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if left < 1023.5 {
            let digits = usize::from(unit != "B" && left < 99.95);
            return format!("{left:.digits$} {unit}");
        }
        left /= 1024.0;
    }
    format!("{left:.1} TiB")
}

#[cfg(test)]
mod tests;
