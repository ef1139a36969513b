
# pg_upgrade: tasks come along with all that they are, and go on in the new
# server; what has run before does not run again.
#
# The servers are of one version, for which pg_upgrade does the same, unless
# TASKSHED_OLD_PATH says where an older one is installed that has taskshed too:
# what has bin/ below it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $path = $ENV{TASKSHED_OLD_PATH};
my $old  = taskshed_node(
	'old',
	install_path => $path,
	initdb       => ['--data-checksums']);
note 'from ' . $old->safe_psql('postgres', 'SELECT version()');
$old->safe_psql(
	'postgres', q{
	CREATE ROLE app LOGIN;
	SET ROLE app;
	SELECT taskshed.add_task('note', kwargs => '{"what": "once"}', task_id => 'once');
	SELECT taskshed.add_task('note', kwargs => '{"what": "daily"}', every => '1 day', group_id => 'g', task_id => 'daily');
	SELECT taskshed.add_task('note', now() + interval '1 day', kwargs => '{"what": "ahead"}', task_id => 'ahead');
	SELECT taskshed.add_callback('say', 'public.note');
	SELECT taskshed.add_task('say', now() + interval '1 day', kwargs => '{"what": "paused"}', task_id => 'paused', paused => true)}
);
await($old,
	q{SELECT run_count = 1 FROM taskshed.tasks WHERE task_id = 'daily'},
	'it has run');
await_no_task($old, 'once');

# One comes due while nobody runs it.
set_and_reload($old, 'taskshed.enabled' => 'off');
$old->safe_psql('postgres',
	q{SELECT taskshed.update_execution_time('ahead', now(), owner => 'app')});

my $all_tasks =
  'SELECT to_jsonb(t) FROM taskshed.tasks AS t ORDER BY task_id';
my $all_runs =
  'SELECT to_jsonb(r) FROM taskshed.runs AS r ORDER BY finished_at, run_id';
my $tasks_before = $old->safe_psql('postgres', $all_tasks);
my $runs_before  = $old->safe_psql('postgres', $all_runs);
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init(extra => ['--data-checksums']);    # (the default of 18)
$new->append_conf(
	'postgresql.conf', q{
shared_preload_libraries = 'taskshed'
max_worker_processes = 20
log_min_messages = debug1
});
my $bindir     = $new->config_data('--bindir');
my $old_bindir = $old->config_data('--bindir');
chdir $new->basedir or die;
command_ok(
	[
		'pg_upgrade',   '--no-sync',     '--retain',     '--old-datadir',
		$old->data_dir, '--new-datadir', $new->data_dir, '--old-bindir',
		$old_bindir,    '--new-bindir',  $bindir,        '--socketdir',
		$new->host,     '--old-port',    $old->port,     '--new-port',
		$new->port
	],
	'pg_upgrade');
my @logs = glob $new->data_dir . '/pg_upgrade_output.d/*/log/*.log';
my $log  = join '', map { slurp_file($_) } @logs;
like($log, qr/DEBUG:  /, 'what the new server did is in the log');
unlike(
	$log,
	qr/starting background worker process "taskshed/,
	'nothing of ours was started meanwhile');
$new->append_conf('postgresql.conf', 'taskshed.enabled = off');
$new->start;
await_status($new, 'postgres', 'disabled');
is($new->safe_psql('postgres', $all_tasks),
	$tasks_before, 'tasks are what they were');
is($new->safe_psql('postgres', $all_runs),
	$runs_before, 'and so is their history');

set_and_reload($new, 'taskshed.enabled' => 'on');
await_no_task($new, 'ahead');
$new->safe_psql(
	'postgres', q{
	SET ROLE app;
	SELECT taskshed.add_task('note', kwargs => '{"what": "new"}', task_id => 'new')}
);
await_no_task($new, 'new');
$new->safe_psql('postgres',
	q{SELECT taskshed.run_tasks(array['paused'], owner => 'app')});
await(
	$new,
	q{SELECT EXISTS (SELECT FROM ledger WHERE what = 'paused')},
	'the alias has come along');
is( $new->safe_psql(
		'postgres', q{SELECT string_agg(what, ' ' ORDER BY what) FROM ledger}
	),
	'ahead daily new once paused',
	'in the new server tasks run, and none a second time');
is( $new->safe_psql(
		'postgres',
		'SELECT count(*), count(DISTINCT run_id) FROM taskshed.runs'),
	'5|5',
	'run_ids go on');
like(
	slurp_file($new->logfile),
	qr/starting background worker process "taskshed launcher"/,
	'and the start of the launcher is in that of a server that serves');

$new->stop;
done_testing();
