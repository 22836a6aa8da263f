//! Kept plans against new ones: the same columns, rows and errors, whatever the constants are.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use meridian_client::cluster::CatalogView;
use meridian_proto::catalog::{CatalogDelta, Noun, NounKey, Table};
use meridian_proto::schema::Column;
use meridian_proto::{CatalogVersion, ColumnId, SqlType};

use super::*;
use crate::error::SqlError;
use crate::exec::remote_scan::RemoteScanExec;
use crate::exec::tests::{Answer, Bench};
use crate::sql::environment::tests::environment;

/// How a statement got its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    New,
    Made,
    Kept,
    Failed,
}

fn asked<'a>(bench: &'a Bench, cut: &'a Cut, parameters: &'a [ScalarValue]) -> Asked<'a> {
    Asked { cut, parameters, environment: &bench.environment, catalog: &bench.catalog, base: &bench.base }
}

/// Runs a statement as a session does. `None`: it has to be planned.
fn try_kept(bench: &Bench, plans: &PlanCache, sql: &str) -> (Way, Option<Result<Answer, SqlError>>) {
    let Some(cut) = Cut::of(sql) else { return (Way::New, None) };
    let asked = asked(bench, &cut, &[]);
    let (way, template, shape) = match plans.find(&asked) {
        Lookup::New => return (Way::New, None),
        Lookup::Kept(template) => (Way::Kept, template, None),
        Lookup::Worth => match Template::make(&asked) {
            Ok((shape, template)) => (Way::Made, Arc::new(template), Some(shape)),
            Err(error) => {
                println!("not kept: {sql}: {}", error.message);
                return (Way::Failed, None);
            }
        },
    };
    match block_on(template.plan(&asked)) {
        Ok(plan) => {
            if let Some(shape) = shape {
                plans.keep(&asked, shape, &template);
            }
            (way, Some(bench.run(template.columns().to_vec(), plan)))
        }
        Err(error) => {
            println!("not filled: {sql}: {}", error.message);
            (Way::Failed, None)
        }
    }
}

/// Every query of the bench goes through here: a plan that was made for other constants answers it as a new one does.
pub(crate) fn check_kept(bench: &Bench, sql: &str, expected: &Result<Answer, SqlError>) {
    let Some(cut) = Cut::of(sql) else { return };
    let asked = asked(bench, &cut, &[]);
    let Ok((shape, _)) = Template::make(&asked) else { return };
    let other = with_other_constants(&cut, &shape);
    let made = Template::make(&Asked { cut: &Cut::of(&other).unwrap(), ..asked });
    let (other_shape, template) = made.unwrap_or_else(|error| panic!("{other}: {error:?}"));
    assert_eq!(other_shape, shape, "{sql}");
    let Ok(plan) = block_on(template.plan(&asked)) else { return };
    if let Ok(new) = bench.plan_with(sql, &[]) {
        assert_eq!(scans_of(&plan), scans_of(&new.1), "{sql}");
    }
    let kept = bench.run(template.columns().to_vec(), plan);
    assert_eq!(in_order(sql, kept), in_order(sql, expected.clone()), "{sql} by the plan of {other}");
}

/// By a plan that is kept for parameters of these types.
pub(crate) fn rows_by_kept_plan(bench: &Bench, sql: &str, parameters: &[ScalarValue]) -> Answer {
    let cut = Cut::of(sql).unwrap();
    let asked = asked(bench, &cut, parameters);
    let (_, template) = Template::make(&asked).unwrap();
    let plan = block_on(template.plan(&asked)).unwrap();
    bench.run(template.columns().to_vec(), plan).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The text with other constants where its plan has holes.
fn with_other_constants(cut: &Cut, shape: &Shape) -> String {
    let mut text = cut.text().to_owned();
    for (index, constant) in
        cut.constants().iter().enumerate().rev().filter(|(index, _)| shape.is_open_constant(*index))
    {
        let other = match Number::of(cut.written(index)) {
            _ if constant.is_text => "'other'".to_owned(),
            Some(Number::Int8) => "8888888888".to_owned(),
            Some(Number::Numeric(..)) => cut.written(index).replace(|c: char| c.is_ascii_digit() && c != '0', "8"),
            _ => "8".to_owned(),
        };
        text.replace_range(constant.start..constant.end, &other);
    }
    text
}

/// What is read where: operators of the fragments, chunks, shards. With one shard a kept plan may send more of itself there.
fn scans_of(plan: &Arc<dyn ExecutionPlan>) -> Vec<(Vec<String>, usize, usize)> {
    let mut scans = Vec::new();
    plan.apply(|plan| {
        if let Some(scan) = plan.downcast_ref::<RemoteScanExec>() {
            let operators = std::iter::successors(Some(scan.fragment()), |plan| plan.children().first().copied());
            let mut names: Vec<_> = operators.map(|plan| plan.name().to_owned()).collect();
            names.dedup();
            let shards = scan.targets().targets.len();
            if shards == 1 {
                names.clear();
            }
            scans.push((names, scan.targets().chunk_count(), shards));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    scans
}

/// Rows whose order the query leaves open are put in one.
fn in_order(sql: &str, answer: Result<Answer, SqlError>) -> Result<Answer, SqlError> {
    let (columns, mut rows) = answer?;
    if !sql.to_ascii_lowercase().contains("order by") {
        rows.sort();
    }
    Ok((columns, rows))
}

/// Runs it in both ways.
fn compare(bench: &Bench, plans: &PlanCache, sql: &str) -> Way {
    let expected = bench.rows_by_new_plan(sql);
    let (way, kept) = try_kept(bench, plans, sql);
    if let Some(kept) = kept {
        assert_eq!(kept, expected, "{way:?}: {sql}");
    } else if way == Way::Failed && expected.is_ok() {
        let cut = Cut::of(sql).unwrap();
        plans.note_failure(&asked(bench, &cut, &[]));
    }
    way
}

/// The pattern with each of these in place of `{}`, twice.
fn check_all(pattern: &str, constants: &[&str], expected: Way) {
    let (bench, plans) = (Bench::new(), PlanCache::default());
    let mut last = Way::New;
    for constant in constants.iter().chain(constants) {
        last = compare(&bench, &plans, &pattern.replace("{}", constant));
    }
    assert_eq!(last, expected, "{pattern}");
}

const TIMES: &[&str] = &[
    "'1970-01-02'",
    "'1970-01-01 07:30'",
    "'1970-01-02 00:00:00+02'",
    "'infinity'",
    "'-infinity'",
    "'abc'",
    "'yesterday'",
    "'now'",
    "'1969-12-31'",
    "''",
    "'1970-01-03 23:00'",
];
const HOSTS: &[&str] = &["'host_1'", "'host_3'", "'nobody'", "'it''s'", "''", "'host_7'", "'host_1 '"];
const NUMBERS: &[&str] = &["5", "70", "0", "2147483648", "70", "9999999999", "5"];

#[test]
fn times_and_hosts_differ_from_one_statement_to_the_next() {
    for pattern in [
        "SELECT count(*), max(v), min(time) FROM metrics WHERE time >= {}",
        "SELECT time_bucket('1 day', time) AS day, host, avg(v) FROM metrics WHERE time < {} GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT count(*) FROM metrics WHERE time BETWEEN '1970-01-01 12:00' AND {}",
        "SELECT count(*) FROM metrics WHERE NOT (time > {} OR v IS NULL)",
        "SELECT host, last(v, time) FROM metrics WHERE {} <= time GROUP BY host ORDER BY host",
        "SELECT time, host, v FROM metrics WHERE time >= {} ORDER BY time DESC, host LIMIT 4",
        "SELECT count(*) FROM metrics WHERE time = {}",
        "SELECT count(*) FROM metrics WHERE time IN ({}, '1970-01-01')",
    ] {
        check_all(pattern, TIMES, Way::Kept);
    }
    for pattern in [
        "SELECT count(*), sum(v) FROM metrics WHERE host = {}",
        "SELECT count(*), sum(v) FROM metrics WHERE host IN ({})",
        "SELECT host, max(v) FROM metrics WHERE host IN ({}, 'host_2') GROUP BY host ORDER BY host",
        "SELECT host, max(v) FROM metrics WHERE host IN ({}, 'host_2', 'host_4', 'host_6') GROUP BY host ORDER BY 1",
        "SELECT host, max(v) FROM metrics WHERE host NOT IN ({}, 'host_2', 'host_4', 'host_5') GROUP BY host ORDER BY 1",
        "SELECT count(*) FROM metrics WHERE host <> {} AND v > 60",
        "SELECT count(*) FROM metrics WHERE host > {}",
        "SELECT time, v FROM metrics WHERE host = {} ORDER BY time DESC LIMIT 1",
        "SELECT rack FROM hosts WHERE host = {}",
        "SELECT m.host, rack, count(*) FROM metrics m JOIN hosts h ON m.host = h.host AND h.host = {} GROUP BY 1, 2",
        "SELECT h.host, m.v FROM hosts h LEFT JOIN metrics m ON h.host = m.host AND m.host >= {} AND m.v > 70 ORDER BY 1, 2",
        "SELECT count(*) FROM metrics WHERE host IN (SELECT host FROM hosts WHERE host < {})",
        "SELECT (SELECT max(v) FROM metrics WHERE host = {}) AS m, count(*) FROM hosts",
        "WITH x AS (SELECT * FROM metrics WHERE host = {}) SELECT count(*) FROM x JOIN hosts USING (host)",
        "SELECT host, v, row_number() OVER (PARTITION BY host ORDER BY time) FROM metrics WHERE host = {} ORDER BY 3 LIMIT 5",
        "SELECT host FROM metrics WHERE host = {} UNION ALL SELECT host FROM hosts WHERE host = 'host_2' ORDER BY 1 LIMIT 3",
        "SELECT DISTINCT ON (host) host, time, v FROM metrics WHERE host = {} ORDER BY host, time DESC",
        "SELECT DISTINCT host FROM metrics WHERE host >= {} ORDER BY host",
        "SELECT (SELECT max(v) FROM metrics WHERE host = {}), count(*) FROM hosts",
        "SELECT host, count(*) FROM metrics WHERE host <> {} GROUP BY 1 HAVING count(*) > 3 ORDER BY 1",
        "SELECT count(*) FROM metrics WHERE host = {} OR host = 'host_2' AND NOT host = {}",
    ] {
        check_all(pattern, HOSTS, Way::Kept);
    }
}

#[test]
fn numbers_have_the_type_of_their_digits() {
    for pattern in [
        "SELECT count(*) FROM metrics WHERE v > {}",
        "SELECT count(*) FROM metrics WHERE v = -{}",
        "SELECT count(*) FROM hosts WHERE rack < {}",
        "SELECT count(*) FROM hosts WHERE rack IN (1, {})",
        "SELECT count(*) FROM hosts WHERE rack BETWEEN 0 AND {}",
    ] {
        check_all(pattern, NUMBERS, Way::Kept);
        check_all(pattern, &["1.5", "70.0", "0.25", "70.00", "1.5"], Way::Kept);
    }
    check_all(
        "SELECT count(*) FROM metrics WHERE v >= {}",
        &["'5'", "'70.5'", "' 7'", "'x'", "'Infinity'", "'NaN'", "'1e1'"],
        Way::Kept,
    );
    check_all(
        "SELECT count(*) FROM hosts WHERE rack = {}",
        &["'1'", "'x'", "'99999999999999999999'", "' 1 '", "'1.0'", "'0'"],
        Way::Kept,
    );
    // With an exponent they are planned by their value.
    check_all("SELECT count(*) FROM metrics WHERE v < {}", &["1e1", "1e2", "5e0"], Way::New);
    let (bench, plans) = (Bench::new(), PlanCache::default());
    for number in ["5", "5", "5.5", "5.5", "3000000000", "3000000000", "5", "'5'", "'5'", "5.55", "1e1", "5"] {
        compare(&bench, &plans, &format!("SELECT count(*) FROM metrics WHERE v > {number} AND host > 'host_2'"));
    }
}

#[test]
fn texts_that_are_cast_to_times_are_holes() {
    for pattern in [
        "SELECT count(*) FROM metrics WHERE time > {}::timestamptz",
        "SELECT count(*) FROM metrics WHERE time > timestamp {}",
        "SELECT count(*) FROM metrics WHERE time > CAST({} AS date)",
    ] {
        check_all(pattern, TIMES, Way::Kept);
    }
}

#[test]
fn the_clock_is_that_of_the_statement() {
    let plans = PlanCache::default();
    let mut bench = Bench::new();
    let day = 86_400_000_000;
    for us in [day, 2 * day, 3 * day, 3 * day + day / 2, 400 * day] {
        let mut environment = (*environment("Europe/Berlin")).clone();
        (environment.transaction_us, environment.statement_us) = (us, us + 5);
        let format = meridian_pgtypes::Format { now_us: Some(us), ..(*environment.format).clone() };
        environment.format = Arc::new(format);
        bench.environment = Arc::new(environment);
        for sql in [
            "SELECT count(*) FROM metrics WHERE time > now() - interval '12 hours' AND time <= now()",
            "SELECT count(*) FROM metrics WHERE time >= current_date AND time < statement_timestamp()",
            "SELECT now(), current_date, localtimestamp, count(*) FROM metrics WHERE time > date_trunc('day', now())",
            "SELECT max(v) FROM metrics WHERE time < 'now' AND time > 'yesterday'",
            "SELECT count(*) FROM metrics WHERE time > now() - interval '1 day' AND host = 'host_2' GROUP BY host",
        ] {
            let way = compare(&bench, &plans, sql);
            assert!(us < 3 * day || way == Way::Kept, "{way:?} {sql}");
        }
    }
}

#[test]
fn plans_of_one_statement_alone_are_not_kept() {
    for sql in [
        "SELECT current_user, count(*) FROM metrics WHERE host = 'a'",
        "SELECT current_setting('TimeZone'), host FROM metrics WHERE host = 'a'",
        "SELECT count(*) FROM metrics WHERE time > 'now'::timestamptz - interval '1 hour'",
        "SELECT count(*) FROM metrics WHERE time > ('no' || 'w')::timestamptz",
        "SELECT count(*) FROM metrics WHERE time > host::timestamptz",
        "SELECT clock_timestamp() > now(), count(*) FROM metrics WHERE host = 'a' GROUP BY 1",
        "SELECT * FROM generate_series(1, 3) g WHERE g > 1",
        "SELECT hypertable_name FROM timescaledb_information.hypertables WHERE hypertable_name = 'metrics'",
        "SELECT c FROM show_chunks('metrics') c WHERE c = 'x'",
        "SELECT max(now() - time) FROM metrics WHERE host = 'a'",
    ] {
        let (bench, plans) = (Bench::new(), PlanCache::default());
        for _ in 0..5 {
            let way = compare(&bench, &plans, sql);
            assert!(matches!(way, Way::New | Way::Failed), "{way:?} {sql}");
        }
        assert_eq!(plans.figures().templates, 0, "{sql}");
    }
}

#[test]
fn constants_that_are_no_holes_are_part_of_the_plan() {
    let (bench, plans) = (Bench::new(), PlanCache::default());
    for round in 0..5 {
        for (width, limit) in [("1 day", 2), ("6 hours", 3), ("1 day", 3)] {
            let sql = format!(
                "SELECT time_bucket('{width}', time) AS t, max(v) + {limit} FROM metrics WHERE host = 'host_{round}' \
                 GROUP BY t ORDER BY t LIMIT {limit}"
            );
            let way = compare(&bench, &plans, &sql);
            assert!(round < 3 || way == Way::Kept, "{way:?} {sql}");
        }
    }
    assert_eq!(plans.figures().templates, 3);
}

#[test]
fn settings_of_the_session_are_part_of_the_plan() {
    let plans = PlanCache::default();
    let sql = |day: usize| {
        format!(
            "SELECT date_trunc('day', time)::text AS d, count(*) FROM metrics WHERE time >= '1970-01-0{day}' GROUP BY 1 ORDER BY 1"
        )
    };
    let mut bench = Bench::new();
    for round in 0..5 {
        for zone in ["UTC", "Europe/Berlin", "America/New_York"] {
            bench.environment = environment(zone);
            let way = compare(&bench, &plans, &sql(1 + round % 3));
            assert!(round < 3 || way == Way::Kept, "{way:?} {zone}");
        }
    }
    bench.catalog.leaves = false;
    assert_ne!(compare(&bench, &plans, &sql(2)), Way::Kept);
    bench.catalog.searches_public = false;
    assert_ne!(compare(&bench, &plans, &sql(2)), Way::Kept);
}

/// The same cluster after a change of its tables.
fn after(view: &CatalogView, changed: Vec<Noun>, removed: Vec<NounKey>) -> Arc<CatalogView> {
    let version = view.version();
    let delta = CatalogDelta { from: version, to: CatalogVersion(version.0 + 1), changed, removed };
    Arc::new(view.apply(&delta).unwrap())
}

fn table(view: &CatalogView, name: &str) -> Table {
    (**view.table_by_name("public", name).unwrap()).clone()
}

#[test]
fn a_plan_holds_as_long_as_its_tables_stay() {
    let (mut bench, plans) = (Bench::new(), PlanCache::default());
    let sql = "SELECT count(*) FROM hosts WHERE rack = 1";
    let ways: Vec<_> = (0..3).map(|_| compare(&bench, &plans, sql)).collect();
    assert_eq!(ways, [Way::New, Way::Made, Way::Kept]);

    // Chunks that come and go change no plan.
    let view = Arc::clone(&bench.catalog.view);
    let chunk = (**view.chunks().last().unwrap()).clone();
    bench.catalog.view = after(&view, vec![Noun::Chunk(chunk)], vec![]);
    assert_eq!(compare(&bench, &plans, sql), Way::Kept);

    // A column more is another table.
    let mut changed = table(&view, "hosts");
    changed.schema.version.0 += 1;
    let name = "site".to_owned();
    changed.schema.columns.push(Column {
        id: ColumnId(3),
        name,
        sql_type: SqlType::Text,
        not_null: false,
        default: None,
        modifier: None,
    });
    bench.catalog.view = after(&bench.catalog.view, vec![Noun::Table(changed)], vec![]);
    let cut = Cut::of(sql).unwrap();
    assert!(matches!(plans.find(&asked(&bench, &cut, &[])), Lookup::Worth));

    // So is one of that name with another type, where the same constant means something else.
    let mut changed = table(&view, "hosts");
    changed.id.0 += 100;
    changed.schema.columns[1].sql_type = SqlType::Text;
    let dropped = NounKey::Table(table(&view, "hosts").id);
    bench.catalog.view = after(&bench.catalog.view, vec![Noun::Table(changed)], vec![dropped]);
    assert!(matches!(plans.find(&asked(&bench, &cut, &[])), Lookup::Worth));
    assert_eq!(bench.rows(sql).unwrap_err().sqlstate, "42883");

    let dropped = NounKey::Table(table(&bench.catalog.view, "hosts").id);
    bench.catalog.view = after(&bench.catalog.view, vec![], vec![dropped]);
    assert!(matches!(plans.find(&asked(&bench, &cut, &[])), Lookup::Worth));
    bench.catalog.view = view;
    assert_eq!(compare(&bench, &plans, sql), Way::Kept);
}

#[test]
fn parameters_of_prepared_statements_are_holes() {
    let (bench, plans) = (Bench::new(), PlanCache::default());
    let sql = "SELECT count(*) FROM metrics WHERE host = $1 AND v > $2 AND v < $3 + 0 LIMIT $4";
    let run = |host: &str, least: f64, most: i32| {
        let parameters = [
            ScalarValue::Utf8(Some(host.to_owned())),
            ScalarValue::Float64(Some(least)),
            ScalarValue::Int32(Some(most)),
            ScalarValue::Int64(Some(10)),
        ];
        let cut = Cut::of(sql).unwrap();
        let asked = asked(&bench, &cut, &parameters);
        let kept = match plans.find(&asked) {
            Lookup::New => return None,
            Lookup::Kept(template) => template,
            Lookup::Worth => {
                let (shape, template) = Template::make(&asked).unwrap();
                let template = Arc::new(template);
                plans.keep(&asked, shape, &template);
                template
            }
        };
        let plan = block_on(kept.plan(&asked)).unwrap();
        Some(bench.run(kept.columns().to_vec(), plan).unwrap().1[0][0].clone())
    };
    assert_eq!(run("host_1", 5.0, 70), None);
    assert_eq!(run("host_1", 5.0, 70).as_deref(), Some("64"));
    assert_eq!(run("host_2", 60.0, 70).as_deref(), Some("9"));
    // Another plan: this one is no hole.
    assert_eq!(run("host_2", 60.0, 71), None);
    assert_eq!(plans.figures().templates, 1);
}

#[test]
fn what_is_kept_is_bounded() {
    let (bench, plans) = (Bench::new(), PlanCache::default());
    for shape in 0..SHAPES_MAX + 10 {
        let sql = format!("SELECT v AS c{shape} FROM metrics WHERE host = 'a'");
        let cut = Cut::of(&sql).unwrap();
        let asked = asked(&bench, &cut, &[]);
        if shape < 3 {
            let (shape, template) = Template::make(&asked).unwrap();
            plans.keep(&asked, shape, &Arc::new(template));
        } else {
            plans.note_failure(&asked);
        }
    }
    assert_eq!(plans.read().shapes.len(), SHAPES_MAX);
    let figures = plans.figures();
    assert_eq!(figures.templates, 0, "the oldest were let go");
    assert!(figures.bytes < 1 << 20, "{figures:?}");
    for number in 0..SEEN_MAX + 10 {
        let sql = format!("SELECT {number} AS once{number}");
        assert!(matches!(plans.find(&asked(&bench, &Cut::of(&sql).unwrap(), &[])), Lookup::New));
    }
    let state = plans.read();
    assert_eq!((state.seen.set.len(), state.seen.order.len()), (SEEN_MAX, SEEN_MAX));
}

#[test]
fn the_memory_of_plans_is_bounded() {
    let (bench, plans) = (Bench::new(), PlanCache::default());
    let part = "SELECT v FROM metrics WHERE host = 'a'";
    let sql = |number: usize| format!("{} LIMIT {number}", [part; 40].join(" UNION ALL "));
    let cuts: Vec<_> = (0..90)
        .map(|number| Cut::of(&sql(1 + number % 10).replacen('v', &format!("v AS v{number}"), 1)).unwrap())
        .collect();
    let (shape, template) = Template::make(&asked(&bench, &cuts[0], &[])).unwrap();
    let template = Arc::new(template);
    for cut in &cuts {
        plans.keep(&asked(&bench, cut, &[]), shape.clone(), &template);
        let figures = plans.figures();
        assert!(figures.bytes <= BYTES_MAX as u64, "{figures:?}");
    }
    let figures = plans.figures();
    assert!(figures.templates > 1 && figures.templates < 90, "{figures:?} of {} each", template.size_bytes());
    assert!(matches!(plans.find(&asked(&bench, &cuts[89], &[])), Lookup::Kept(_)));
    assert!(matches!(plans.find(&asked(&bench, &cuts[0], &[])), Lookup::New));
}

#[test]
fn constants_that_decide_a_plan_are_never_exchanged() {
    let families: &[(&str, &[&str])] = &[
        ("SELECT host, max(v) FROM metrics WHERE host < 'host_5' GROUP BY 1 ORDER BY {}, 1", &["1", "2", "2", "3"]),
        ("SELECT {}, count(*) FROM metrics WHERE host < 'host_5' GROUP BY 1", &["1", "'a'", "2", "NULL"]),
        ("SELECT time, host FROM metrics WHERE v > 20 ORDER BY 1, 2 LIMIT {}", &["0", "1", "3", "NULL", "ALL", "-1"]),
        ("SELECT time, host FROM metrics WHERE v > 75 ORDER BY 1, 2 OFFSET {}", &["0", "1", "3", "NULL", "-1"]),
        (
            "SELECT time_bucket('{}', time) AS t, count(*) FROM metrics WHERE v > 3 GROUP BY t ORDER BY t",
            &["1 day", "6 hours", "2 days", "x"],
        ),
        (
            "SELECT count(*) FROM metrics WHERE host IN ({})",
            &["'host_1'", "'host_1', 'host_2'", "'host_1', NULL", "'a', 'b', 'c', 'd', 'host_5'", "NULL"],
        ),
        (
            "SELECT count(*) FROM metrics WHERE host NOT IN ({})",
            &["'host_1'", "'host_1', 'host_2'", "'host_1', NULL", "'a', 'b', 'c', 'd', 'host_5'"],
        ),
        (
            "SELECT count(*) FROM metrics WHERE v > {}",
            &["5", "NULL", "5.0", "'5'", "1e1", "-5", "- 5", "0", "'NaN'", "v"],
        ),
        (
            "SELECT count(*) FROM metrics WHERE v > 5 AND {}",
            &["1 = 1", "1 = 2", "2 = 2", "true", "false", "NULL", "1 IS NULL"],
        ),
        (
            "SELECT round(v::numeric / 7, {}) FROM metrics WHERE host = 'host_3' ORDER BY time LIMIT 3",
            &["1", "2", "0", "1"],
        ),
        ("SELECT v / {} FROM metrics WHERE host = 'host_3' ORDER BY time LIMIT 3", &["2", "2.0", "3", "0", "'2'"]),
        ("SELECT substr(host, {}) || 'x' FROM metrics WHERE v = 3 ORDER BY 1", &["1", "2", "6"]),
        ("SELECT count(*) FROM metrics WHERE time > now() - interval '{}'", &["1 day", "100 years", "60 years", "x"]),
        (
            "SELECT CASE WHEN v > {} THEN 'high' ELSE 'low' END, count(*) FROM metrics WHERE v > 1 GROUP BY 1 ORDER BY 1",
            &["5", "50", "500"],
        ),
        (
            "SELECT host LIKE '{}', count(*) FROM metrics WHERE host LIKE '{}' AND v < 70 GROUP BY 1",
            &["host_1", "%_2", "%", "x%"],
        ),
        (
            "SELECT count(*) FROM metrics WHERE host = 'host_1' AND date_trunc('{}', time) = '1970-01-02'",
            &["day", "hour", "month"],
        ),
        (
            "SELECT h.host, x.v FROM hosts h JOIN LATERAL (SELECT max(v) AS v FROM metrics m WHERE m.host = h.host AND m.host < '{}') x ON true ORDER BY 1, 2",
            &["host_3", "host_5"],
        ),
        (
            "SELECT count(*) FROM hosts h WHERE EXISTS (SELECT 1 FROM metrics m WHERE m.host = h.host AND v > {})",
            &["70", "5", "73"],
        ),
        ("SELECT host = {}, count(*) FROM metrics WHERE host = {} GROUP BY 1", &["'host_1'", "'host_2'"]),
        ("SELECT count(*) FROM hosts WHERE rack = {}", &["1", "'1'", "1.0", "1.5", "9999999999", "true", "'x'"]),
        ("SELECT count(*) FROM hosts WHERE rack BETWEEN {} AND 1", &["0", "'0'", "NULL", "1", "0.5"]),
    ];
    let (bench, plans) = (Bench::new(), PlanCache::default());
    for round in 0..4 {
        for (pattern, constants) in families {
            for constant in *constants {
                compare(&bench, &plans, &pattern.replace("{}", constant));
            }
        }
        assert!(round < 3 || plans.figures().hits > 100, "{:?}", plans.figures());
    }
}

#[test]
fn statements_with_one_kept_plan_run_side_by_side() {
    let bench = Bench::new();
    for pattern in [
        "SELECT host, max(v) FROM metrics WHERE host <> {} GROUP BY host ORDER BY 2 DESC, 1 LIMIT 3",
        "SELECT m.host, rack, count(*) FROM metrics m JOIN hosts h ON m.host = h.host AND h.host > {} GROUP BY 1, 2 ORDER BY 1",
        "SELECT count(*) FROM metrics m CROSS JOIN hosts h WHERE h.host = {}",
        "SELECT count(*) FROM metrics m JOIN hosts h ON m.host < h.host AND h.host < {}",
        "SELECT max(v), min(time) FROM metrics WHERE host = {}",
        "SELECT host, v, rank() OVER (ORDER BY v DESC NULLS LAST, time, host) FROM metrics WHERE host <= {} ORDER BY 3 LIMIT 5",
        "SELECT DISTINCT host FROM metrics WHERE host >= {} UNION SELECT host FROM hosts ORDER BY 1",
    ] {
        let texts = ["'host_1'", "'host_3'", "'host_6'"].map(|host| pattern.replace("{}", host));
        let cuts = texts.each_ref().map(|text| Cut::of(text).unwrap());
        let (_, template) = Template::make(&asked(&bench, &cuts[0], &[])).unwrap();
        let plans = cuts.each_ref().map(|cut| block_on(template.plan(&asked(&bench, cut, &[]))).unwrap());
        let answers = std::thread::scope(|scope| {
            let run = |plan| scope.spawn(|| bench.run(template.columns().to_vec(), plan));
            plans.map(run).map(|thread| thread.join().unwrap())
        });
        for (text, answer) in texts.iter().zip(answers) {
            assert_eq!(answer, bench.rows_by_new_plan(text), "{text}");
        }
    }
}

#[test]
fn parameters_of_other_types_have_other_plans() {
    let (bench, plans) = (Bench::new(), PlanCache::default());
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
    let texts = |values: &[Option<&str>]| {
        let values: Vec<_> = values.iter().map(|value| ScalarValue::Utf8(value.map(str::to_owned))).collect();
        ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Utf8))
    };
    let families = [
        (
            "SELECT count(*) FROM metrics WHERE v > $1",
            vec![
                ScalarValue::Int32(Some(5)),
                ScalarValue::Int64(Some(5)),
                ScalarValue::Float64(Some(5.5)),
                ScalarValue::Decimal128(Some(55), 38, 1),
                ScalarValue::Int32(None),
                ScalarValue::Float64(Some(f64::NAN)),
                ScalarValue::Int64(Some(70)),
            ],
        ),
        ("SELECT host, $1 FROM metrics WHERE v = 3 ORDER BY 1", vec![text("1"), ScalarValue::Int32(Some(1)), text("")]),
        (
            "SELECT count(*) FROM metrics WHERE host = ANY ($1)",
            vec![
                texts(&[Some("host_1"), Some("host_2")]),
                texts(&[Some("host_1, host_2")]),
                texts(&[None, Some("host_1")]),
                texts(&[Some(""), Some("host_1")]),
                texts(&[]),
            ],
        ),
    ];
    for _ in 0..4 {
        for (sql, values) in &families {
            for value in values {
                let parameters = [value.clone()];
                let expected = bench.plan_with(sql, &parameters).and_then(|(columns, plan)| bench.run(columns, plan));
                let cut = Cut::of(sql).unwrap();
                let asked = asked(&bench, &cut, &parameters);
                let template = match plans.find(&asked) {
                    Lookup::New => continue,
                    Lookup::Kept(template) => template,
                    Lookup::Worth => {
                        let Ok((shape, template)) = Template::make(&asked) else { continue };
                        let template = Arc::new(template);
                        plans.keep(&asked, shape, &template);
                        template
                    }
                };
                let Ok(plan) = block_on(template.plan(&asked)) else { continue };
                assert_eq!(bench.run(template.columns().to_vec(), plan), expected, "{sql} {value:?}");
            }
        }
    }
    assert!(plans.figures().hits > 10, "{:?}", plans.figures());
}

#[test]
fn a_statement_that_is_seen_once_is_planned_as_ever() {
    let (bench, plans) = (Bench::new(), PlanCache::default());
    let sql = "SELECT count(*) FROM metrics WHERE v > 5";
    assert_eq!(compare(&bench, &plans, sql), Way::New);
    assert!(!plans.has_plans_of(&Cut::of(sql).unwrap()));
    assert_eq!(plans.figures(), PlanCacheFigures { misses: 1, ..PlanCacheFigures::default() });
    compare(&bench, &plans, sql);
    compare(&bench, &plans, sql);
    let figures = plans.figures();
    assert_eq!((figures.hits, figures.misses, figures.templates), (1, 2, 1));
    assert!(figures.bytes > 0);
}
