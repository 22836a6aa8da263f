//! EXPLAIN: a plan as PostgreSQL draws one, a section per remote part with its data nodes, and what ran there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, InputOrderMode};
use meridian_client::cluster::CatalogView;
use meridian_fragment::{FirstRowsExec, FirstRowsMode, KeySort, Want, leaf_of};
use serde_json::{Map, Value, json};

use super::remote_scan::RemoteScanExec;

/// Times of an EXPLAIN ANALYZE.
pub(crate) struct Measured {
    pub planning: Duration,
    pub execution: Duration,
}

/// A node of the drawn plan.
struct Drawn {
    title: String,
    /// `Filter: ...`, below the title.
    details: Vec<(String, Value)>,
    children: Vec<Drawn>,
}

/// One line per row of the answer. `was_kept`: whether the plan was kept from an earlier statement.
pub(crate) fn explain_text(
    plan: &dyn ExecutionPlan,
    view: &CatalogView,
    was_kept: bool,
    measured: Option<&Measured>,
) -> Vec<String> {
    let mut lines = Vec::new();
    write(&draw(plan, view, measured.is_some()), 0, &mut lines);
    lines.push(format!("Plan Cache: {}", hit_or_miss(was_kept)));
    if let Some(measured) = measured {
        lines.push(format!("Planning Time: {:.3} ms", measured.planning.as_secs_f64() * 1e3));
        lines.push(format!("Execution Time: {:.3} ms", measured.execution.as_secs_f64() * 1e3));
    }
    lines
}

pub(crate) fn explain_json(
    plan: &dyn ExecutionPlan,
    view: &CatalogView,
    was_kept: bool,
    measured: Option<&Measured>,
) -> String {
    let mut top = Map::new();
    top.insert("Plan".to_owned(), to_json(&draw(plan, view, measured.is_some())));
    top.insert("Plan Cache".to_owned(), json!(hit_or_miss(was_kept)));
    if let Some(measured) = measured {
        top.insert("Planning Time".to_owned(), json!(measured.planning.as_secs_f64() * 1e3));
        top.insert("Execution Time".to_owned(), json!(measured.execution.as_secs_f64() * 1e3));
    }
    serde_json::to_string_pretty(&Value::Array(vec![Value::Object(top)])).unwrap_or_default()
}

fn hit_or_miss(was_kept: bool) -> &'static str {
    if was_kept { "hit" } else { "miss" }
}

fn write(node: &Drawn, depth: usize, lines: &mut Vec<String>) {
    let indent = if depth == 0 { String::new() } else { format!("{}->  ", " ".repeat(depth * 6 - 4)) };
    lines.push(format!("{indent}{}", node.title));
    let below = " ".repeat(depth * 6 + 2);
    for (name, value) in &node.details {
        match value {
            Value::Array(values) => {
                for value in values {
                    lines.push(format!("{below}{name}: {}", plain(value)));
                }
            }
            value => lines.push(format!("{below}{name}: {}", plain(value))),
        }
    }
    for child in &node.children {
        write(child, depth + 1, lines);
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{} {name}", plain(value));
            match fields.get("Node") {
                Some(node) => {
                    let rest = fields.iter().filter(|(name, _)| *name != "Node").map(field);
                    format!("{}: {}", plain(node), rest.collect::<Vec<_>>().join(", "))
                }
                None => fields.iter().map(field).collect::<Vec<_>>().join(", "),
            }
        }
        other => other.to_string(),
    }
}

fn to_json(node: &Drawn) -> Value {
    let mut object = Map::new();
    object.insert("Node Type".to_owned(), json!(node.title));
    for (name, value) in &node.details {
        object.insert(name.clone(), value.clone());
    }
    if !node.children.is_empty() {
        object.insert("Plans".to_owned(), node.children.iter().map(to_json).collect());
    }
    Value::Object(object)
}

fn draw(plan: &dyn ExecutionPlan, view: &CatalogView, analyzed: bool) -> Drawn {
    if let Some(scan) = plan.downcast_ref::<RemoteScanExec>() {
        return draw_remote(scan, view, analyzed);
    }
    let mut node = Drawn { title: title(plan), details: details(plan), children: vec![] };
    if analyzed && let Some(rows) = plan.metrics().and_then(|metrics| metrics.output_rows()) {
        node.title = format!("{} (actual rows={rows})", node.title);
    }
    node.children = plan.children().into_iter().map(|child| draw(child.as_ref(), view, analyzed)).collect();
    // Repartitioning and the like move rows about; PostgreSQL's readers look for the operators.
    if is_plumbing(plan)
        && let Some(child) = node.children.pop()
    {
        return child;
    }
    node
}

fn is_plumbing(plan: &dyn ExecutionPlan) -> bool {
    matches!(plan.name(), "RepartitionExec" | "CoalescePartitionsExec" | "CoalesceBatchesExec" | "CooperativeExec")
        || (plan.is::<ProjectionExec>() && !plan.children().is_empty())
}

fn title(plan: &dyn ExecutionPlan) -> String {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let grouped = !aggregate.group_expr().expr().is_empty();
        let kind = match aggregate.input_order_mode() {
            _ if !grouped => "Aggregate",
            InputOrderMode::Sorted => "GroupAggregate",
            InputOrderMode::Linear | InputOrderMode::PartiallySorted(_) => "HashAggregate",
        };
        return match format!("{:?}", aggregate.mode()).as_str() {
            "Partial" => format!("Partial {kind}"),
            "Final" | "FinalPartitioned" => format!("Finalize {kind}"),
            _ => kind.to_owned(),
        };
    }
    if let Some(first) = plan.downcast_ref::<FirstRowsExec>() {
        return match first.mode() {
            FirstRowsMode::Part => "Partial First Rows".to_owned(),
            FirstRowsMode::Whole => "First Rows".to_owned(),
        };
    }
    match plan.name() {
        "SortExec" => "Sort".to_owned(),
        "SortPreservingMergeExec" => "Merge Append".to_owned(),
        "FilterExec" => "Filter".to_owned(),
        "ProjectionExec" | "PlaceholderRowExec" | "EmptyExec" => "Result".to_owned(),
        "GlobalLimitExec" | "LocalLimitExec" => "Limit".to_owned(),
        "HashJoinExec" => "Hash Join".to_owned(),
        "NestedLoopJoinExec" | "CrossJoinExec" => "Nested Loop".to_owned(),
        "SortMergeJoinExec" => "Merge Join".to_owned(),
        "UnionExec" => "Append".to_owned(),
        "WindowAggExec" | "BoundedWindowAggExec" => "WindowAgg".to_owned(),
        "DataSourceExec" => "Values Scan".to_owned(),
        "MetadataAggregate" => "Metadata Aggregate".to_owned(),
        "BucketAggregate" => "Bucket Aggregate".to_owned(),
        other => other.trim_end_matches("Exec").to_owned(),
    }
}

/// What the operator does, by DataFusion's own words.
fn details(plan: &dyn ExecutionPlan) -> Vec<(String, Value)> {
    let mut details = Vec::new();
    let mut add = |name: &str, text: String| details.push((name.to_owned(), json!(text)));
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        add("Filter", format!("({})", filter.predicate()));
    } else if let Some(sort) = plan.downcast_ref::<SortExec>() {
        add("Sort Key", sort.expr().to_string());
        if let Some(rows) = sort.fetch() {
            add("Top", rows.to_string());
        }
    } else if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
        add("Sort Key", merge.expr().to_string());
    } else if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let keys: Vec<String> = aggregate.group_expr().expr().iter().map(|(expr, _)| expr.to_string()).collect();
        if !keys.is_empty() {
            add("Group Key", keys.join(", "));
        }
        let functions: Vec<String> = aggregate.aggr_expr().iter().map(|expr| as_written(expr.name())).collect();
        if !functions.is_empty() {
            add("Aggregates", functions.join(", "));
        }
    } else if let Some(first) = plan.downcast_ref::<FirstRowsExec>() {
        add("Key", listed(first.keys()));
        if !first.order().is_empty() {
            add("First by", listed(first.order()));
        }
        if !first.sorted_by().is_empty() {
            let sort = |sort: &KeySort| format!("{} {}", first.keys()[sort.key], sort.options);
            add("Sort Key", first.sorted_by().iter().map(sort).collect::<Vec<_>>().join(", "));
        }
    } else if let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() {
        add("Rows", limit.fetch().map_or_else(|| "all".to_owned(), |rows| rows.to_string()));
        if limit.skip() > 0 {
            add("Offset", limit.skip().to_string());
        }
    } else if let Some(limit) = plan.downcast_ref::<LocalLimitExec>() {
        add("Rows", limit.fetch().to_string());
    } else if plan.is::<HashJoinExec>() || plan.is::<SortMergeJoinExec>() || plan.is::<NestedLoopJoinExec>() {
        add("Join", one_line(plan));
    }
    details
}

fn listed(exprs: &[impl ToString]) -> String {
    exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

struct OneLine<'a>(&'a dyn ExecutionPlan);

impl std::fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt_as(DisplayFormatType::Default, f)
    }
}

fn one_line(plan: &dyn ExecutionPlan) -> String {
    let text = OneLine(plan).to_string();
    text.split_once(": ").map_or(text.clone(), |(_, rest)| rest.to_owned())
}

/// The remote part: what was pushed, which chunks are read, and on which data nodes.
fn draw_remote(scan: &RemoteScanExec, view: &CatalogView, analyzed: bool) -> Drawn {
    let targets = scan.targets();
    let mut details = vec![
        ("Chunks".to_owned(), json!({ "scanned": targets.chunk_count(), "pruned": targets.chunks_pruned })),
        ("Data Node".to_owned(), Value::Array(nodes(scan, view, analyzed))),
    ];
    let pushed = pushed(scan);
    if !pushed.is_empty() {
        details.insert(0, ("Pushed".to_owned(), json!(pushed.join(", "))));
    }
    let title = format!("Remote Scan on {}", scan.table().name);
    Drawn { title, details, children: vec![draw_fragment(scan.fragment(), scan)] }
}

fn draw_fragment(plan: &Arc<dyn ExecutionPlan>, scan: &RemoteScanExec) -> Drawn {
    let children = plan.children();
    if children.is_empty() {
        let mut details = vec![("Columns".to_owned(), json!(super::remote_scan::leaf_columns(scan).join(", ")))];
        let bounds_and_order = one_line(plan.as_ref());
        if let Some((_, bounds)) = bounds_and_order.split_once("bounds=[") {
            details.push(("Bounds".to_owned(), json!(bounds.trim_end_matches(']'))));
        }
        if let Some(Want::Series(series)) = leaf_of(plan).map(|leaf| leaf.want()) {
            let name = |column: &usize| scan.table().schema.columns.get(*column).map_or("?", |c| c.name.as_str());
            let key: Vec<_> = series.key.iter().map(name).collect();
            details.insert(0, ("Series Key".to_owned(), json!(key.join(", "))));
        }
        if let Some((_, rest)) = bounds_and_order.split_once("order=[") {
            let order = rest.split(']').next().unwrap_or_default();
            details.insert(0, ("Merge Order".to_owned(), json!(order)));
        }
        return Drawn {
            title: format!("{} on {}", leaf_title(plan.name()), scan.table().name),
            details,
            children: vec![],
        };
    }
    let child = draw_fragment(children[0], scan);
    if plan.is::<ProjectionExec>() {
        return child;
    }
    Drawn { title: title(plan.as_ref()), details: details(plan.as_ref()), children: vec![child] }
}

fn leaf_title(name: &str) -> &str {
    match name {
        "SkipScan" => "Skip Scan",
        "LastPointScan" => "Last Point Scan",
        "FirstPointScan" => "First Point Scan",
        "SeriesEndsScan" => "Series Ends Scan",
        "BucketScan" => "Bucket Scan",
        "MergeScan" => "Merge Scan",
        _ => "Chunk Scan",
    }
}

fn pushed(scan: &RemoteScanExec) -> Vec<&'static str> {
    let mut pushed = Vec::new();
    let mut node = Some(scan.fragment());
    while let Some(plan) = node {
        let name = match plan.name() {
            "AggregateExec"
                if format!("{:?}", plan.downcast_ref::<AggregateExec>().map(AggregateExec::mode))
                    .contains("Partial") =>
            {
                "partial aggregate"
            }
            "AggregateExec" => "aggregate",
            "SortExec" => "top-N",
            "LocalLimitExec" | "GlobalLimitExec" => "limit",
            "FilterExec" => "filter",
            "MetadataAggregate" => "metadata",
            "BucketAggregate" => "buckets",
            "FirstRows" => "first rows",
            "SkipScan" => "skip scan",
            "MergeScan" => "order",
            "LastPointScan" | "FirstPointScan" | "SeriesEndsScan" => "series ends",
            "ProjectionExec" => "projection",
            _ => "",
        };
        if !name.is_empty() && !pushed.contains(&name) {
            pushed.push(name);
        }
        node = plan.children().first().copied();
    }
    if leaf_of(scan.fragment()).is_some_and(|leaf| leaf.projection().len() < leaf.table_schema().fields().len()) {
        pushed.push("columns");
    }
    pushed
}

#[derive(Default)]
struct NodeSum {
    shards: usize,
    chunks: usize,
    rows_scanned: u64,
    segments: (u64, u64),
    rows: u64,
    bytes: u64,
    time_us: u64,
    retries: u64,
}

fn nodes(scan: &RemoteScanExec, view: &CatalogView, analyzed: bool) -> Vec<Value> {
    let mut sums: BTreeMap<String, NodeSum> = BTreeMap::new();
    for (target, traffic) in scan.targets().targets.iter().zip(scan.traffic()) {
        let name = view.node(target.node).map_or_else(|| target.node.to_string(), |node| node.name.clone());
        let sum = sums.entry(name).or_default();
        let remote = traffic.remote();
        sum.shards += 1;
        sum.chunks += target.chunks.len();
        sum.rows_scanned += remote.rows_scanned;
        sum.segments.0 += remote.segments_scanned;
        sum.segments.1 += remote.segments_pruned;
        sum.rows += traffic.rows.load(Ordering::Relaxed);
        sum.bytes += traffic.bytes.load(Ordering::Relaxed);
        sum.time_us = sum.time_us.max(traffic.elapsed_us.load(Ordering::Relaxed));
        sum.retries += traffic.retries.load(Ordering::Relaxed);
    }
    sums.into_iter().map(|(name, sum)| sum.to_json(&name, analyzed)).collect()
}

impl NodeSum {
    fn to_json(&self, name: &str, analyzed: bool) -> Value {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        put("Node", json!(name));
        put("shards", json!(self.shards));
        put("chunks", json!(self.chunks));
        if analyzed {
            put("rows scanned", json!(self.rows_scanned));
            put("segments scanned", json!(self.segments.0));
            put("segments pruned", json!(self.segments.1));
            put("rows returned", json!(self.rows));
            // Within the process rows are handed over as they are.
            if self.bytes > 0 {
                put("bytes", json!(self.bytes));
            }
            put("ms", json!((self.time_us as f64 / 10.0).round() / 100.0));
            if self.retries > 0 {
                put("retries", json!(self.retries));
            }
        }
        Value::Object(object)
    }
}
/// `count(*)` goes through planning as a count of ones.
fn as_written(function: &str) -> String {
    function.replace("count(Int64(1))", "count(*)")
}
