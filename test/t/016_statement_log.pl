
# What logs statements, logs runs: a call as its text, without the values of kwargs whatever is set,
# and the command of taskshed.execute as the statement that it is.  Nothing is logged unasked.  And
# pg_stat_activity says what runs.  The kind of mistake: a DBA's settings for a role's statements
# that pass over what its tasks do, or that bring out what was passed to them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'statement_log',
	conf => q{
taskshed.max_workers = 1
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
log_min_error_statement = debug5
});

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
GRANT EXECUTE ON PROCEDURE taskshed.execute TO app;
CREATE FUNCTION takes(secret text, pause float8 DEFAULT 0) RETURNS void LANGUAGE plpgsql AS
	'BEGIN PERFORM pg_sleep(pause); END';
CREATE FUNCTION takes_nothing() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION fails(secret text) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'failed'; END$$;
CREATE PROCEDURE commits(secret text) LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
CREATE TABLE made (i integer);
GRANT ALL ON made TO app;
});

my $offset = 0;
my $n      = 0;

# Runs a task; returns what the log has of statements since, and sees to it that it has nothing else
# of what was passed.
sub logged
{
	my ($callback, $kwargs) = @_;
	my $id = 'task ' . ++$n;

	$node->safe_psql('postgres',
		"SELECT taskshed.add_task('$callback', kwargs => \$k\$$kwargs\$k\$, task_id => '$id', owner => 'app')"
	);
	await(
		$node,
		"SELECT EXISTS (SELECT FROM taskshed.runs WHERE task_id = '$id')",
		"$callback $kwargs: has run");

	# (The next one begins when all that this one logs is there.)
	$node->safe_psql('postgres',
		"SELECT taskshed.remove_all_tasks('app'); SELECT taskshed.add_task('takes', kwargs => '{\"secret\": \"last\"}', task_id => '$id last', owner => 'app')"
	);
	await(
		$node,
		"SELECT EXISTS (SELECT FROM taskshed.runs WHERE task_id = '$id last')",
		"$id: and another");
	my $log = substr slurp_file($node->logfile), $offset;
	$offset += length $log;
	unlike($log, qr/xyzzy/, "$callback $kwargs: no value of kwargs");

	my @lines = map { s/\d+\.\d+ ms/N ms/r }
	  map { /taskshed worker LOG:  ((?:statement|duration).*)/ ? $1 : () }
	  split /\n/, $log;
	return join ' | ', @lines;
}

# Has the role log that, and its processes begin anew.
sub settings
{
	my (@settings) = @_;
	my $pids = $node->safe_psql('postgres',
		q{SELECT coalesce(string_agg(pid::text, ','), '0') FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
	);

	$node->safe_psql(
		'postgres',
		'ALTER ROLE app RESET ALL;' . join ';',
		map { "ALTER ROLE app SET $_" } @settings);
	await(
		$node,
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid IN ($pids)",
		'workers with the old settings have left');
	return;
}

my $takes   = 'SELECT public.takes(secret => $1)';
my $secret  = '{"secret": "xyzzy"}';
my $command = q{INSERT INTO made VALUES (1); CREATE TEMP TABLE x AS SELECT 2};
my $execute = qq{{"command": "$command"}};

# ------------------------------------------------------------------------
# Nothing that was not asked for

foreach my $each (
	[ 'takes',            $secret ],
	[ 'commits',          $secret ],
	[ 'fails',            $secret ],
	[ 'takes_nothing',    '{}' ],
	[ 'taskshed.execute', $execute ])
{
	is(logged(@$each), '', "$each->[0]: nothing is logged");
}
unlike(
	slurp_file($node->logfile),
	qr/INSERT INTO made/,
	'the command is not in the log');

# ------------------------------------------------------------------------
# log_statement

settings(q{log_statement = 'all'});
is( logged('takes', $secret),
	"statement: $takes | statement: $takes",
	'all: a function');
is( logged('takes', '{"pause": 0, "secret": "xyzzy"}'),
	"statement: SELECT public.takes(secret => \$1, pause => \$2) | statement: $takes",
	'all: another');
is( logged('commits', $secret),
	"statement: CALL public.commits(secret => \$1) | statement: $takes",
	'all: a procedure');
is( logged('takes_nothing', '{}'),
	"statement: SELECT public.takes_nothing() | statement: $takes",
	'all: a function that is called by planning it');
like(
	logged('fails', $secret),
	qr/^statement: SELECT public\.fails\(secret => \$1\) \| /,
	'all: one that fails');
is( logged('taskshed.execute', $execute),
	"statement: $command | statement: $takes",
	'all: commands');
settings('log_statement = mod');
is(logged('takes', $secret), '', 'mod: no function');
is( logged('taskshed.execute', $execute),
	"statement: $command",
	'mod: a command that modifies');
is(logged('taskshed.execute', '{"command": "SELECT 1; SELECT 2"}'),
	'', 'mod: and no other');
settings('log_statement = ddl');
is( logged('taskshed.execute', '{"command": "INSERT INTO made VALUES (1)"}'),
	'',
	'ddl: not what modifies');
is( logged(
		'taskshed.execute', '{"command": "SELECT 1; CREATE TEMP TABLE x ()"}'
	),
	'statement: SELECT 1; CREATE TEMP TABLE x ()',
	'ddl: but what defines');

# ------------------------------------------------------------------------
# log_duration and its siblings

settings('log_duration = on');
is( logged('takes', $secret),
	'duration: N ms | duration: N ms',
	'log_duration');
is( logged('taskshed.execute', $execute),
	'duration: N ms | duration: N ms',
	'of commands: one for all');
settings('log_duration = on', q{log_statement = 'all'});
is( logged('takes', $secret),
	"statement: $takes | duration: N ms | statement: $takes | duration: N ms",
	'log_duration and log_statement');
foreach my $setting (
	'log_min_duration_statement = 0',
	'log_min_duration_sample = 0; ALTER ROLE app SET log_statement_sample_rate = 1',
	'log_transaction_sample_rate = 1')
{
	my $last = "duration: N ms  statement: $takes";

	settings($setting);
	is(logged('takes', $secret), "$last | $last", "$setting: a function");
	is( logged('commits', $secret),
		"duration: N ms  statement: CALL public.commits(secret => \$1) | $last",
		'a procedure');
	is( logged('takes_nothing', '{}'),
		"duration: N ms  statement: SELECT public.takes_nothing() | $last",
		'a constant');
	is(logged('taskshed.execute', $execute),
		"duration: N ms  statement: $command | $last", 'commands');
}
settings('log_min_duration_sample = 0', 'log_statement_sample_rate = 0');
is(logged('takes', $secret), '', 'a sample of none');
settings(q{log_min_duration_statement = '1h'});
is(logged('takes', $secret), '', 'not what is short');
settings(q{log_min_duration_statement = '100ms'});
like(
	logged('takes', '{"pause": 0.15, "secret": "xyzzy"}'),
	qr/^duration: N ms  statement: SELECT public\.takes\(secret => \$1, pause => \$2\)/,
	'but what is long');

# auto_explain shows parameters, from 16 on and if it is not kept from that.
SKIP:
{
	my ($libdir) = `pg_config --pkglibdir` =~ /(.*)/;

	skip 'auto_explain is not installed', 1 if !glob "$libdir/auto_explain.*";
	settings(
		'session_preload_libraries = auto_explain',
		'auto_explain.log_min_duration = 0');
	my $start = $offset;
	logged('takes', $secret);
	like(
		substr(slurp_file($node->logfile), $start),
		qr/Query Text: SELECT public\.takes\(secret => \$1\)/,
		'auto_explain explains runs');
}

# ------------------------------------------------------------------------
# pg_stat_activity

settings();
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql('postgres',
	q{SET ROLE app; SELECT taskshed.add_callback('run', 'taskshed.execute')});
my $waits = q{SELECT pg_advisory_lock(1); SELECT 'xyzzy'};
foreach my $each ([ 'taskshed.execute', $waits ], [ 'run', $waits ])
{
	my ($callback, $shown) = @$each;

	$node->safe_psql('postgres',
		"SELECT taskshed.add_task('$callback', kwargs => jsonb_build_object('command', \$k\$$waits\$k\$::text), task_id => 'waits', owner => 'app')"
	);
	await_blocked($node, 1);
	is( $node->safe_psql(
			'postgres',
			q{SELECT query FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
		),
		$shown,
		"$callback is the command");
	$node->safe_psql('postgres',
		q{SELECT taskshed.cancel_task('waits', 'app')});
	await_state($node, 'waits', 'failed');
	$node->safe_psql('postgres',
		q{SELECT taskshed.remove_task('waits', 'app')});
}
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "xyzzy"}', task_id => 'holds', owner => 'app')}
);
await_blocked($node, 1);
is( $node->safe_psql(
		'postgres',
		q{SELECT query FROM pg_stat_activity WHERE backend_type = 'taskshed worker'}
	),
	'public.hold -- task holds',
	'a function is its name, with the task');
$holder->query('SELECT pg_advisory_unlock(1)');
await_no_task($node, 'holds');

$holder->quit;
$node->stop;
done_testing();
