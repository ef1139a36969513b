
# On a standby nothing runs and scheduling is an error, but tasks can be looked
# at.  When it is promoted they run at once, and what has run before does not run
# again; a primary that comes back by pg_rewind runs what the others had left.
#
# Quick: standby

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $first = PostgreSQL::Test::Cluster->new('first');
$first->init(allows_streaming => 1);
$first->append_conf(
	'postgresql.conf', q{
shared_preload_libraries = 'taskshed'
max_worker_processes = 20
wal_log_hints = on
wal_keep_size = '256MB'
log_statement = none
log_min_messages = info
log_line_prefix = '%m [%p] %b %q%u@%d '
});
$first->start;
taskshed_database($first, 'postgres');

# Tasks of all kinds: one that has run, one that recurs, some that are ahead.
$first->safe_psql(
	'postgres', q{
	SELECT taskshed.add_task('note', kwargs => '{"what": "before"}', task_id => 'before');
	SELECT taskshed.add_task('note', run_at => now() + interval '1 day', kwargs => '{"what": "ahead"}', task_id => 'ahead');
	SELECT taskshed.add_task('note', run_at => now() + interval '1 day', kwargs => '{"what": "paused"}', task_id => 'paused', paused => true);
	SELECT taskshed.add_task('note', now() + interval '1 day', jsonb_build_object('what', c), every => '1 hour', catch_up => c, task_id => c, group_id => 'hourly')
	FROM unnest(array['all', 'coalesce', 'skip']) AS c}
);
await_no_task($first, 'before');
$first->backup('backup');

my $second = PostgreSQL::Test::Cluster->new('second');
$second->init_from_backup($first, 'backup', has_streaming => 1);
$second->start;

# The standby
$first->safe_psql(
	'postgres', q{
	SELECT taskshed.add_task('note', run_at => now() + interval '1 day', kwargs => '{"what": "due"}', task_id => 'due');
	SELECT taskshed.add_task('note', kwargs => '{"what": "daily"}', every => '1 day', task_id => 'daily')}
);
await($first,
	q{SELECT run_count = 1 FROM taskshed.tasks WHERE task_id = 'daily'},
	'it has run');
$first->wait_for_catchup($second);
is( $second->safe_psql(
		'postgres',
		'SELECT task_id, state, run_count FROM taskshed.tasks WHERE group_id IS NULL ORDER BY task_id'
	),
	"ahead|scheduled|0\ndaily|scheduled|1\ndue|scheduled|0\npaused|paused|0",
	'the standby shows tasks');
is( $second->safe_psql(
		'postgres',
		'SELECT task_id FROM taskshed.runs ORDER BY finished_at, run_id'),
	"before\ndaily",
	'and their history');
is( $second->safe_psql(
		'postgres',
		'SELECT database, state, scheduler_pid, due, failed, next_wakeup, message FROM taskshed.status'
	),
	'postgres|standby||0|0||the server is a standby, whose primary runs the tasks',
	'no scheduler is there, and status says why');
is( $second->safe_psql(
		'postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'taskshed%'}
	),
	'0',
	'and no process at all');

foreach my $call (
	q{add_task('note', kwargs => '{"what": "x"}')},
	q{remove_task('ahead')},
	q{pause_task('ahead')},
	q{run_tasks(array['ahead'])})
{
	my ($rc, $out, $err) = $second->psql('postgres',
		"\\set VERBOSITY verbose\nSELECT taskshed.$call");
	like(
		$err,
		qr/25006: .*(recovery|standby|read-only)/,
		"on the standby an error: $call");
}

# A task comes due and is not run, since that is off in the primary (a setting
# in a file, which is not replicated); nor could it be on the standby.
sub leave_due
{
	my ($primary, $standby, $task_id) = @_;

	set_and_reload($primary, 'taskshed.enabled' => 'off');
	$primary->safe_psql(
		'postgres', qq{
		SELECT taskshed.update_execution_time('$task_id', now());
		SELECT taskshed.update_execution_time(t, now() - interval '150 minutes') FROM unnest(array['all', 'coalesce', 'skip']) AS t}
	);
	$primary->wait_for_catchup($standby);
	is( $standby->safe_psql(
			'postgres',
			"SELECT run_at <= now(), run_count FROM taskshed.tasks WHERE task_id = '$task_id'"
		),
		't|0',
		'due, and not run');
}
leave_due($first, $second, 'due');
$second->promote;

# The old primary does not know, and goes on for a while.
$first->safe_psql('postgres',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "lost"}', task_id => 'lost')}
);
$first->stop('fast');
await_no_task($second, 'due');
my $hourly_waits =
  q{SELECT bool_and(run_at > now()) FROM taskshed.tasks WHERE group_id = 'hourly'};
await($second, $hourly_waits, 'recurring tasks have gone on');
is( $second->safe_psql(
		'postgres', q{SELECT string_agg(what, ' ' ORDER BY what) FROM ledger}
	),
	'all all all before coalesce daily due',
	'promoted, it runs what is due, once, and by its catch_up');
$second->safe_psql('postgres',
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "promoted"}', task_id => 'promoted')}
);
await_no_task($second, 'promoted');
is( $second->safe_psql(
		'postgres',
		'SELECT task_id, state, run_count FROM taskshed.tasks WHERE group_id IS NULL ORDER BY task_id'
	),
	"ahead|scheduled|0\ndaily|scheduled|1\npaused|paused|0",
	'and the others wait as they did');

# The first one comes back, as a standby of the second, and is promoted again.
# Before PostgreSQL 16, pg_rewind takes the source's timeline from its last
# checkpoint, so that one is needed after the promotion.
$second->safe_psql('postgres', 'CHECKPOINT');
command_ok(
	[
		'pg_rewind',      '--target-pgdata',
		$first->data_dir, '--source-server',
		$second->connstr('postgres')
	],
	'pg_rewind');
$first->append_conf('postgresql.conf',
		"port = "
	  . $first->port
	  . "\nunix_socket_directories = '"
	  . $first->host
	  . "'\nprimary_conninfo = '"
	  . $second->connstr
	  . " application_name=first'\n");
$first->set_standby_mode;
$first->start;
$second->wait_for_catchup($first);
leave_due($second, $first, 'ahead');
$second->stop('fast');
$first->promote;
await_no_task($first, 'ahead');
await($first, $hourly_waits, 'recurring tasks have gone on again');
is( $first->safe_psql(
		'postgres', q{SELECT string_agg(what, ' ' ORDER BY what) FROM ledger}
	),
	'ahead all all all all all all before coalesce coalesce daily due promoted',
	'back again, each has had its effect once');
is( $first->safe_psql(
		'postgres',
		q{SELECT state FROM taskshed.status WHERE database = 'postgres'}),
	'active',
	'a promoted server holds nothing back');

# And a server that fails in the midst of it: of the tasks that had come to the
# standby, each has its effect once.
$first->safe_psql('postgres', 'CHECKPOINT');
command_ok(
	[
		'pg_rewind',       '--target-pgdata',
		$second->data_dir, '--source-server',
		$first->connstr('postgres')
	],
	'pg_rewind of the other');
$second->append_conf('postgresql.conf',
		"port = "
	  . $second->port
	  . "\nunix_socket_directories = '"
	  . $second->host
	  . "'\nprimary_conninfo = '"
	  . $first->connstr
	  . " application_name=second'\n");
$second->append_conf('postgresql.auto.conf', 'taskshed.enabled = on');
$second->set_standby_mode;
$second->start;
$first->wait_for_catchup($second);
set_and_reload($first, 'taskshed.enabled' => 'on');
$first->safe_psql(
	'postgres', q{
	SELECT taskshed.add_task('note', kwargs => jsonb_build_object('what', 'flow ' || i), task_id => 'flow ' || i)
	FROM generate_series(1, 20000) AS i});
await($second, q{SELECT count(*) > 100 FROM ledger WHERE what LIKE 'flow %'},
	'tasks flow');
$first->stop('immediate');
my ($flown, $left) = split /\|/,
  $second->safe_psql('postgres',
	q{SELECT (SELECT count(*) FROM ledger WHERE what LIKE 'flow %'), count(*) FROM taskshed.tasks WHERE task_id LIKE 'flow %'}
  );
note "$flown had run, $left had not";
is($flown + $left, 20000, 'what has run is gone, what has not is there');
$second->promote;
await($second,
	q{SELECT count(*) = 0 FROM taskshed.tasks WHERE task_id LIKE 'flow %'},
	'they all run');
is( $second->safe_psql(
		'postgres',
		q{SELECT count(*), count(DISTINCT what) FROM ledger WHERE what LIKE 'flow %'}
	),
	'20000|20000',
	'once each');

$second->stop;
done_testing();
