
# All settings of taskshed: each takes effect where it is changed, without a
# restart.  What each does is shown here or in the test that is named with it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

# Name => another value than the default, and the test that shows what it does;
# "here": this one.
my %settings = (
	'allow_superuser_tasks'  => [ 'off',   'here' ],
	'enabled'                => [ 'off',   'here' ],
	'failed_retention'       => [ '7min',  'here' ],
	'history'                => [ 'none',  'here' ],
	'history_max_size'       => [ '77MB',  '034_history.pl' ],
	'history_max_text'       => [ '7B',    'here' ],
	'history_retention'      => [ '7min',  '034_history.pl' ],
	'log_failures'           => [ 'log',   '010_settings.pl' ],
	'max_interruptions'      => [ '7',     '040_interrupted.pl' ],
	'max_tasks_per_role'     => [ '7',     'here' ],
	'max_workers'            => [ '7',     'here' ],
	'max_workers_per_role'   => [ '7',     '044_roles.pl' ],
	'notify_failures'        => [ 'told',  '088_on_failure.pl' ],
	'on_failure'             => [ 'alert', '088_on_failure.pl' ],
	'pause_after_failures'   => [ '1',     'here' ],
	'scheduler_idle_timeout' => [ '7s',    '058_asleep.pl' ],
	'synchronous_commit'     => [ 'local', '010_settings.pl' ],
	'tasks_per_commit'       => [ '7',     '084_batches.pl' ],
	'timeout'                => [ '7s',    'here' ],
	'worker_idle_timeout'    => [ '7s',    '010_settings.pl' ],);

my $node = taskshed_node('all_settings');

is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(substr(name, 10), ' ' ORDER BY name COLLATE "C") FROM pg_settings WHERE name LIKE 'taskshed.%'}
	),
	join(' ', sort keys %settings),
	'all settings are here');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(name, ' ') FROM pg_settings WHERE name LIKE 'taskshed.%' AND (context NOT IN ('sighup', 'superuser', 'user') OR short_desc = '')}
	),
	'',
	'none needs a restart');

foreach my $name (sort keys %settings)
{
	my ($value, $shown) = @{ $settings{$name} };

	if ($shown ne 'here')
	{
		like(slurp_file("$FindBin::RealBin/$shown"),
			qr/taskshed\.$name|\b$name\b/, "$shown is about $name");
	}
	my $default = $node->safe_psql('postgres', "SHOW taskshed.$name");

	# a reload, and what a database and a role have for their sessions
	set_and_reload($node, "taskshed.$name" => $value);
	await(
		$node,
		"SELECT current_setting('taskshed.$name') = '$value'",
		"$name is reloaded");
	set_and_reload($node, "taskshed.$name" => undef);
	await(
		$node,
		"SELECT current_setting('taskshed.$name') = '$default'",
		"$name is reset");
	my $context = $node->safe_psql('postgres',
		"SELECT context FROM pg_settings WHERE name = 'taskshed.$name'");
	foreach my $object ('DATABASE postgres', 'ROLE postgres')
	{
		my ($rc) = $node->psql(
			'postgres',
			"ALTER $object SET taskshed.$name = '$value'",
			on_error_stop => 1);

		is( $rc == 0,
			$context ne 'sighup',
			"$name: ALTER $object, or an error that it cannot be");
		is( $node->safe_psql('postgres', "SHOW taskshed.$name"),
			$rc == 0 ? $value : $default,
			"$name: and sessions have it");
		$node->safe_psql('postgres', "ALTER $object RESET taskshed.$name")
		  if $rc == 0;
	}
}
await_status($node, 'postgres', 'active');

# Each way, what takes place in workers and the scheduler, while they are there.
my $holder = session($node);
$node->safe_psql(
	'postgres', q{
	CREATE ROLE app LOGIN;
	CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'oh, this is long'; END $$;
	CREATE FUNCTION tells() RETURNS text LANGUAGE sql AS $$ SELECT 'a long result' $$}
);
my $n = 0;

# Runs a task of app's, and returns what was recorded: status and a text.
sub run_one
{
	my ($callback, $more) = @_;
	my $id = 'run ' . ++$n;

	$node->safe_psql('postgres',
		"SELECT taskshed.add_task('$callback', task_id => '$id', owner => 'app'"
		  . ($more || '')
		  . ')');
	await(
		$node,
		"SELECT coalesce((SELECT state = 'failed' OR run_count > 0 FROM taskshed.tasks WHERE task_id = '$id'), true)",
		"$id is done");
	return $node->safe_psql('postgres',
		"SELECT status, coalesce(result, message) FROM taskshed.runs WHERE task_id = '$id'"
	);
}

foreach my $way ('system', 'database', 'role')
{
	my $set = sub {
		my ($name, $value) = @_;
		if ($way eq 'system')
		{
			set_and_reload($node, "taskshed.$name" => $value);
		}
		else
		{
			$node->safe_psql(
				'postgres',
				'ALTER '
				  . ($way eq 'role' ? 'ROLE app' : 'DATABASE postgres')
				  . (
					defined $value
					? " SET taskshed.$name = '$value'"
					: " RESET taskshed.$name"));
		}
	};

	# A worker takes notice between two runs: a run or two may be as before.
	my $becomes = sub {
		my ($expected, $what, @run) = @_;
		my $got = '';

		foreach (1 .. 100)
		{
			$got = run_one(@run);
			last if $got eq $expected;
		}
		is($got, $expected, "$way: $what");
	};

	$becomes->('succeeded|a long result', 'a run', 'tells');
	$set->('history_max_text' => '6B');
	$becomes->('succeeded|a long', 'history_max_text', 'tells');
	$set->('history_max_text' => undef);
	$becomes->('succeeded|a long result', 'history_max_text reset', 'tells');
	$set->('history' => 'none');
	$becomes->('', 'history', 'tells');
	$set->('history' => undef);
	$becomes->('succeeded|a long result', 'history reset', 'tells');
	$set->('timeout' => '100ms');
	$holder->query('SELECT pg_advisory_lock(1)');
	$becomes->(
		'timeout|the run took longer than its timeout',
		'timeout', 'hold', q{, kwargs => '{"what": "x"}'});
	$holder->query('SELECT pg_advisory_unlock(1)');
	$set->('timeout'              => undef);
	$set->('pause_after_failures' => 1);
	$becomes->('failed|oh, this is long', 'fails', 'fails') foreach (1 .. 2);
	run_one('fails', q{, every => '1 day'});
	is( $node->safe_psql(
			'postgres',
			"SELECT paused_at IS NOT NULL FROM taskshed.tasks WHERE task_id = 'run $n'"
		),
		't',
		"$way: pause_after_failures");
	$set->('pause_after_failures' => undef);
	$set->('max_tasks_per_role'   => 1);
	is( psql_as(
			$node,
			'app',
			q{SELECT count(taskshed.add_task('tells', now() + interval '1 day')) FROM generate_series(1, 2)}
		),
		'53400',
		"$way: max_tasks_per_role");
	$set->('max_tasks_per_role' => undef);
	$node->safe_psql('postgres', q{SELECT taskshed.remove_all_tasks('app')});
}

# failed_retention, for the server and for the database: the scheduler's
foreach my $way ('system', 'database')
{
	run_one('fails');
	$node->safe_psql('postgres',
		q{UPDATE _taskshed.alarm SET failed_at = failed_at - interval '8 min'}
	);
	$way eq 'system'
	  ? set_and_reload($node, 'taskshed.failed_retention' => '7min')
	  : $node->safe_psql('postgres',
		q{ALTER DATABASE postgres SET taskshed.failed_retention = '7min'});
	await_no_task($node, "run $n");
	set_and_reload($node, 'taskshed.failed_retention' => undef);
	$node->safe_psql('postgres',
		'ALTER DATABASE postgres RESET taskshed.failed_retention');
}

# allow_superuser_tasks
set_and_reload($node, 'taskshed.allow_superuser_tasks' => 'off');
is(psql_as($node, 'postgres', q{SELECT taskshed.add_task('tells')}),
	'42501', 'allow_superuser_tasks');
set_and_reload($node, 'taskshed.allow_superuser_tasks' => undef);

# max_workers: up and down, while they are busy and when they are idle.
foreach my $way ('system', 'database')
{
	my $max = sub {
		my ($workers) = @_;
		if ($way eq 'system')
		{
			set_and_reload($node, 'taskshed.max_workers' => $workers);
			return;
		}
		$node->safe_psql(
			'postgres',
			'ALTER DATABASE postgres '
			  . (
				defined $workers
				? "SET taskshed.max_workers = $workers"
				: 'RESET taskshed.max_workers'));
	};

	$holder->query('SELECT pg_advisory_lock(1)');
	$max->(2);
	$node->safe_psql('postgres',
		q{SELECT taskshed.add_task('hold', kwargs => '{"what": "x"}', task_id => 'held ' || i, owner => 'app') FROM generate_series(1, 8) AS i}
	);
	await_blocked($node, 2);
	$max->(6);
	await_blocked($node, 6);
	$max->(3);
	await_blocked($node, 6);
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_no_task($node, 'held %');
	await(
		$node,
		'SELECT workers <= 3 FROM taskshed.status',
		"$way: those that were too many have left");
	$max->(1);
	await(
		$node,
		'SELECT workers <= 1 FROM taskshed.status',
		"$way: idle ones, too");
	$max->(undef);
}

# enabled = off: what runs comes to its end, and then there is nothing left.
foreach my $way ('system', 'database')
{
	$holder->query('SELECT pg_advisory_lock(1)');
	$node->safe_psql(
		'postgres', q{
		TRUNCATE ledger;
		SELECT taskshed.add_task('hold', kwargs => '{"what": "runs"}', task_id => 'runs', owner => 'app')}
	);
	await_blocked($node, 1);
	$way eq 'system'
	  ? set_and_reload($node, 'taskshed.enabled' => 'off')
	  : $node->safe_psql('postgres',
		'ALTER DATABASE postgres SET taskshed.enabled = off');
	await_status($node, 'postgres', 'disabled');
	$node->safe_psql('postgres',
		q{SELECT taskshed.add_task('note', kwargs => '{"what": "waits"}', task_id => 'waits', owner => 'app')}
	);
	await_state($node, 'runs', 'running');
	$holder->query('SELECT pg_advisory_unlock(1)');
	await_no_task($node, 'runs');
	is($node->safe_psql('postgres', 'SELECT what FROM ledger'),
		'runs', "$way: a run comes to its end, and no other begins");
	set_and_reload($node, 'taskshed.enabled' => undef) if $way eq 'system';
	$node->safe_psql('postgres',
		'ALTER DATABASE postgres RESET taskshed.enabled');
	await_no_task($node, 'waits');
}

# A scheduler that is about to leave when the launcher has heard of a reload and it has
# not (here because nobody tells it) does not leave as if nothing had happened.
set_and_reload(
	$node,
	'taskshed.scheduler_idle_timeout' => '1s',
	'taskshed.worker_idle_timeout'    => '10ms');
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "last"}', task_id => 'last', owner => 'app')}
);
await_no_task($node, 'last');
$node->safe_psql('postgres', 'ALTER SYSTEM SET taskshed.enabled = off');
kill 'HUP',
  $node->safe_psql('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'taskshed launcher'}
  );
await_status($node, 'postgres', 'disabled');

$holder->quit;
$node->stop;
done_testing();
