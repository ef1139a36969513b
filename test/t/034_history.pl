
# The history: what is recorded of which runs, how long texts may be, who may
# see what; that it is bounded by size and by age; and that an analyst with an
# open transaction on it neither waits for anybody nor holds anybody up.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('history');

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
CREATE ROLE monitor LOGIN IN ROLE pg_read_all_stats;
CREATE ROLE boss LOGIN IN ROLE app;
CREATE FUNCTION say(what text, error boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(what);
	IF error THEN
		RAISE EXCEPTION '%', what USING DETAIL = 'detail of ' || what, HINT = 'hint of ' || what, ERRCODE = 'UX123';
	END IF;
	RETURN 'result of ' || what;
END $$;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION rows(n integer) RETURNS SETOF integer LANGUAGE sql AS 'SELECT * FROM generate_series(1, n)';
CREATE FUNCTION long(n integer, error boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF error THEN
		RAISE EXCEPTION '%', repeat('é', n) USING DETAIL = repeat('d', n), HINT = repeat('h', n);
	END IF;
	RETURN repeat('é', n);
END $$;
});

#
# What is recorded
#
app(q{add_task('say', kwargs => '{"what": "good"}', task_id => 'good', group_id => 'g')}
);
app(q{add_task('say', kwargs => '{"what": "bad", "error": true}', task_id => 'bad')}
);
app(q{add_task('nothing', clock_timestamp() - interval '1 min', task_id => 'late', start_within => '1 s')}
);
await_calm($node);
is( query(
		q{SELECT owner, task_id, group_id, callback, status, attempt, result, sqlstate, message, detail, hint
		FROM taskshed.runs ORDER BY finished_at, run_id}
	),
	join("\n",
		'app|good|g|public.say|succeeded|1|result of good||||',
		'app|bad||public.say|failed|1||UX123|bad|detail of bad|hint of bad',
		'app|late||public.nothing|missed|1|||||'),
	'runs are recorded');
is( query(q{SELECT context FROM taskshed.runs WHERE task_id = 'bad'}),
	'PL/pgSQL function say(text,boolean) line 5 at RAISE',
	'with the context of an error');
is( query(
		q{SELECT r.task_id FROM taskshed.runs r LEFT JOIN ledger l ON l.what = r.task_id
		WHERE NOT (scheduled_at <= started_at AND started_at <= finished_at AND worker_pid > 0
			AND (l.pid IS NULL OR l.pid = worker_pid)
			AND (l.started IS NULL OR l.started BETWEEN started_at AND finished_at))
			AND status <> 'missed'
		OR status = 'missed' AND (started_at IS NOT NULL OR finished_at < scheduled_at)}
	),
	'',
	'with when and where they ran');
is(query(q{SELECT count(*), count(DISTINCT run_id) FROM taskshed.runs}),
	'3|3', 'each has a number of its own');

app(q{add_task('nothing', task_id => 'void')});
app(q{add_task('rows', kwargs => '{"n": 3}', task_id => 'rows')});
await_calm($node);
is( query(
		q{SELECT task_id, status, coalesce(result, 'NULL') FROM taskshed.runs WHERE task_id IN ('void', 'rows') ORDER BY task_id}
	) =~ /^rows\|succeeded\|.*\nvoid\|succeeded\|/,
	1,
	'functions that return nothing, or rows, too');

# all, errors, none: the task's own wish goes before the setting.
foreach my $default (undef, 'errors', 'none', 'all')
{
	my %recorded = (
		all    => [ 'failed', 'succeeded' ],
		errors => ['failed'],
		none   => []);
	my $effective = $default || 'all';

	set_and_reload($node, 'taskshed.history' => $default);
	await(
		$node,
		"SELECT current_setting('taskshed.history') = '$effective'",
		'the setting has changed');

	# (a new worker knows it for sure)
	query(
		q{SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
	);
	foreach my $own (undef, 'all', 'errors', 'none')
	{
		my $name =
		  'by ' . ($default || 'default') . ' ' . ($own || 'default');
		my $history = defined $own ? "'$own'" : 'NULL';

		app(qq{add_task('say', kwargs => '{"what": "x", "error": $_}', task_id => '$name $_', history => $history)}
		) foreach ('false', 'true');
		await_calm($node);
		is( query(
				qq{SELECT status FROM taskshed.runs WHERE task_id LIKE '$name %' ORDER BY status}
			),
			join("\n", @{ $recorded{ $own || $effective } }),
			"recorded $name");
		is( query(
				qq{SELECT last_status, last_error FROM taskshed.tasks WHERE task_id = '$name true'}
			),
			'failed|x',
			'and the task itself has its error in any case');
	}
}

# Texts are cut between characters.
app(q{add_task('long', kwargs => '{"n": 10000}', task_id => 'long')});
app(q{add_task('long', kwargs => '{"n": 10000, "error": true}', task_id => 'long error')}
);
await_calm($node);
is( query(
		q{SELECT octet_length(result), result = repeat('é', 512) FROM taskshed.runs WHERE task_id = 'long'}
	),
	'1024|t',
	'a long result is cut');
is( query(
		q{SELECT octet_length(message), octet_length(detail), octet_length(hint) FROM taskshed.runs WHERE task_id = 'long error'}
	),
	'1024|1024|1024',
	'so are errors');
set_and_reload($node, 'taskshed.history_max_text' => '11B');
await(
	$node,
	q{SELECT current_setting('taskshed.history_max_text') = '11B'},
	'the setting has changed');
query(
	q{SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
);
app(q{add_task('long', kwargs => '{"n": 10}', task_id => 'short')});
await_calm($node);
is(query(q{SELECT result FROM taskshed.runs WHERE task_id = 'short'}),
	'é' x 5, 'as short as one likes');
set_and_reload($node, 'taskshed.history_max_text' => undef);

#
# Who may see what
#
my $visible =
  q{SELECT status, result, sqlstate, message, detail, hint, context IS NOT NULL FROM taskshed.runs
	WHERE task_id IN ('good', 'bad') ORDER BY finished_at, run_id};
my $all =
  "succeeded|result of good|||||f\nfailed||UX123|bad|detail of bad|hint of bad|t";
is(query("SET ROLE app; $visible"),   $all, 'the owner sees its runs');
is(query("SET ROLE boss; $visible"),  $all, 'so do members of it');
is(query($visible),                   $all, 'and superusers');
is(query("SET ROLE other; $visible"), '',   'nobody else does');
is(query("SET ROLE other; SELECT count(*) FROM taskshed.runs"),
	'0', 'any of them');
is( query("SET ROLE monitor; $visible"),
	"succeeded||||||f\nfailed||UX123||||f",
	'pg_read_all_stats sees runs without what they said');

foreach my $role ('app', 'monitor')
{
	foreach my $statement (
		'SELECT count(*) FROM _taskshed.run_0',
		'DELETE FROM taskshed.runs',
		'DELETE FROM _taskshed.run_0',
		'UPDATE _taskshed.run_0 SET message = NULL',
		'TRUNCATE _taskshed.run_0',
		'SELECT * FROM _taskshed.history',
		q{SELECT nextval('_taskshed.run_seq')})
	{
		my ($rc, $out, $err) =
		  $node->psql('postgres', "SET ROLE $role; $statement");

		like(
			$err,
			qr/permission denied|cannot delete from view/,
			"$role: $statement");
	}
}

# A condition with a function of the reader's own does not see what the view
# hides.
query(
	q{
CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
	RAISE NOTICE 'leaked %', $1;
	RETURN true;
END $$});
my ($rc, $out, $err) = $node->psql('postgres',
	q{SET ROLE other; SELECT count(*) FROM taskshed.runs WHERE leak(task_id)}
);
is("$out$err", '0', 'a leaky condition sees nothing');

# A role that is renamed keeps its runs; one that is gone leaves them to
# superusers.
query('ALTER ROLE app RENAME TO app2');
is( query(q{SELECT DISTINCT owner FROM taskshed.runs WHERE task_id = 'good'}),
	'app2', 'an owner that was renamed');
query('ALTER ROLE app2 RENAME TO app');

#
# Bounded by age and size
#

# Runs, so many with so many bytes each; returns when they are done.
sub make_runs
{
	my ($name, $n, $bytes) = @_;

	query(
		qq{SELECT count(taskshed.add_task('long', kwargs => '{"n": $bytes}', task_id => '$name ' || i))
		FROM generate_series(1, $n) AS i});
	await_no_task($node, "$name %");
	return;
}

# The scheduler looks after the history when it starts, and every ten seconds
# while there are runs.
sub maintain
{
	my $pid = query('SELECT scheduler_pid FROM taskshed.status');

	# (without one, the next task brings one)
	if ($pid ne '')
	{
		query("SELECT pg_terminate_backend($pid)");
		await(
			$node,
			"SELECT scheduler_pid <> $pid AND state = 'active' FROM taskshed.status",
			'another scheduler is there');
	}
	make_runs('after', 1, 1);
	return;
}

my $size = q{SELECT sum(pg_total_relation_size(oid)) FROM pg_class
	WHERE relnamespace = '_taskshed'::regnamespace AND relkind = 'r' AND relname ~ '^run_\d$'};
my $part =
  q{SELECT part FROM _taskshed.history ORDER BY began_at DESC LIMIT 1};

maintain();
is(query(q{SELECT count(*) FROM taskshed.runs WHERE task_id = 'good'}),
	'1', 'nothing goes as long as there is no need');
my $before = query($part);
set_and_reload($node, 'taskshed.history_max_size' => '4MB');
my $largest = 0;
for my $i (1 .. 14)
{
	my $now;

	make_runs("batch $i", 1500, 500);
	maintain();
	$now     = query($size);
	$largest = $now if $now > $largest;
}
isnt(query($part), $before, 'other tables are in use');
is(query(q{SELECT count(*) FROM taskshed.runs WHERE task_id = 'good'}),
	'0', 'the oldest runs go when the history is too large');
is( query(
		q{SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'batch 14 %'}
	),
	'1500',
	'the newest stay');
cmp_ok(
	query($size), '<',
	14 * 1500 * 1000,
	'the history is smaller than all that was written');
diag(   'with a limit of 4 MB and steps of '
	  . int(1500 * 1100 / 1024)
	  . ' kB it was '
	  . int($largest / 1024)
	  . ' kB at most');

# An analyst has read all of it and has not finished: nobody waits, and
# nothing goes that was seen.
my $analyst = session($node);
$analyst->query('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $seen = $analyst->query(
	'SELECT count(*), md5(string_agg(run_id::text, $$,$$ ORDER BY finished_at, run_id)) FROM taskshed.runs'
);
for my $i (1 .. 12)
{
	make_runs("behind $i", 1500, 500);
	maintain();
}
is( query(
		q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IN (SELECT oid FROM pg_class WHERE relname ~ '^run_')}
	),
	'0',
	'nobody waits');
is( $analyst->query(
		'SELECT count(*), md5(string_agg(run_id::text, $$,$$ ORDER BY finished_at, run_id)) FROM taskshed.runs'
	),
	$seen,
	'an analyst sees the same as before');
is( query(
		q{SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'behind %'}),
	12 * 1500,
	'all runs were recorded meanwhile');
is($analyst->query('COMMIT'), '', 'the analyst is done');
my $grown = query($size);
for my $i (1 .. 14)
{
	make_runs("later $i", 1500, 500);
	maintain();
}
is( query(
		q{SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'behind 1 %'}
	),
	'0',
	'after that the old ones go');
diag(   'it had grown to '
	  . int($grown / 1024)
	  . ' kB and is '
	  . int(query($size) / 1024)
	  . ' kB again');

# One who comes after the table was emptied sees it as it is, with an older
# snapshot too, without an error.
is($analyst->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1'),
	'1', 'a snapshot');
make_runs('while', 10, 10);
like($analyst->query('SELECT count(*) >= 0 FROM taskshed.runs'),
	qr/^t$/, 'reads what there is');
$analyst->query('COMMIT');
$analyst->quit;

# By age.  Nobody waits for days here: the tables are said to be older.
set_and_reload(
	$node,
	'taskshed.history_max_size'  => '1GB',
	'taskshed.history_retention' => '1d');
make_runs('young', 10, 10);
query(q{UPDATE _taskshed.history SET began_at = began_at - interval '20 h'});
maintain();
is( query(q{SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'young %'}),
	'10', 'younger runs stay');
query(q{UPDATE _taskshed.history SET began_at = began_at - interval '4.5 h'});
maintain();
maintain();
is( query(q{SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'later %'}),
	'0', 'runs that are too old go');
is( query(q{SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'young %'}),
	'10', 'only those');
query(q{UPDATE _taskshed.history SET began_at = began_at - interval '30 h'});
maintain();
maintain();
is( query(q{SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'young %'}),
	'0', 'and at last all of them');
cmp_ok(query(q{SELECT count(*) FROM taskshed.runs}),
	'>', 0, 'new ones are recorded');

# A restart changes nothing, after a crash neither.
my $runs =
  q{SELECT count(*), md5(string_agg(r::text, ',' ORDER BY finished_at, run_id)) FROM taskshed.runs r};
make_runs('restart', 100, 10);
$before = query($runs);
$node->restart;
is(query($runs), $before, 'the history survives a restart');
query('CHECKPOINT');
$node->stop('immediate');
$node->start;
is(query($runs), $before, 'and a crash');
make_runs('more', 10, 10);
is( query(q{SELECT count(*) FROM taskshed.runs WHERE task_id LIKE 'more %'}),
	'10', 'it goes on');

# Emptying a table is not undone when it is cut off, by a crash or because the
# disk is full.  Then the rows are gone, and the index has not even its first
# block: here that is so for the table that comes next.
my $next  = query("SELECT (($part) + 1) % 8");
my @files = split /\n/, query(
	qq{SELECT pg_relation_filepath(r)
	FROM unnest(ARRAY['_taskshed.run_$next', '_taskshed.run_${next}_task']::regclass[]) AS r}
);
$node->stop;
foreach my $file (@files)
{
	truncate($node->data_dir . "/$file", 0) or die "$file: $!";
}
$node->start;
await(
	$node,
	"SELECT pg_relation_size('_taskshed.run_${next}_task') > 0",
	'the index is whole again');
query(q{UPDATE _taskshed.history SET began_at = began_at - interval '30 h'});
maintain();
make_runs('torn', 10, 10);
is( query(
		qq{SELECT count(*) FROM _taskshed.run_$next WHERE task_id LIKE 'torn %'}
	),
	'10',
	'the table is used in its turn');

$node->stop;
done_testing();
