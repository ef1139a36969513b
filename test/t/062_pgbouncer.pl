
# Clients that share server connections through pgbouncer in transaction mode:
# scheduling, bulk calls and errors of two clients that take turns on one
# connection, roles, and statements that are prepared by the protocol.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;
use Time::HiRes qw(usleep);

my $version =
  `pgbouncer --version 2>/dev/null` =~ /PgBouncer (\d+)\.(\d+)/
  ? 100 * $1 + $2
  : undef;
plan skip_all => 'pgbouncer is not installed' unless defined $version;
plan skip_all => 'pgbouncer does not run as root' if $> == 0;

my $node  = taskshed_node('pgbouncer');
my $super = $node->safe_psql('postgres', 'SELECT current_user');
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');

my $dir  = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
append_to_file("$dir/users", qq{"app" ""\n"$super" ""\n});
append_to_file(
	"$dir/ini", qq{
[databases]
postgres = host=@{[$node->host]} port=@{[$node->port]}
[pgbouncer]
listen_port = $port
unix_socket_dir = $dir
auth_type = trust
auth_file = $dir/users
pool_mode = transaction
default_pool_size = 1
ignore_startup_parameters = extra_float_digits
}
	  . ($version >= 121 ? "max_prepared_statements = 20\n" : ''));
my ($log, $stdin) = ('', '');
my $bouncer =
  IPC::Run::start([ 'pgbouncer', "$dir/ini" ], '<', \$stdin, '>&', \$log);

# Clients of it
my $conninfo = "host=$dir port=$port dbname=postgres user=app";
{

	package TaskshedTest::Bouncer;

	sub connstr { return $conninfo }
}
my $through = bless {}, 'TaskshedTest::Bouncer';

sub client { return session($through) }

my $up = 0;
foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last
	  if $up = !system("psql -XAtq -c '' '$conninfo' >$dir/out 2>&1");
	usleep(100_000);
}
ok($up, 'pgbouncer is there') or diag(slurp_file("$dir/out") . $log);

# Two clients take turns.
my ($one, $two) = (client(), client());
is( $one->query('SELECT pg_backend_pid()'),
	$two->query('SELECT pg_backend_pid()'),
	'two clients have one server connection');
foreach my $i (1 .. 20)
{
	foreach my $client ($one, $two)
	{
		my $what = ($client == $one ? 'one' : 'two') . " $i";

		is($client->query(add_note($what)), $what,
			"client $what adds a task");
	}
	is( $one->query(
			qq{SELECT taskshed.add_tasks('[{"callback": "public.note", "kwargs": {"what": "bulk $i"}}, {"callback": "public.note", "kwargs": {"what": "bulk $i"}}]') = '{}'}
		),
		'f',
		'one adds several') if $i % 5 == 0;
	like(
		$two->query(q{SELECT taskshed.add_task('public.no_such_function')}),
		qr/ERROR: .* does not exist/,
		'two makes a mistake') if $i % 5 == 0;
}
await_drained($node);
is( query(
		q{SELECT count(*), count(DISTINCT what), count(*) FILTER (WHERE who = 'app/app') FROM ledger}
	),
	'48|44|48',
	'each has run once');

# One in a transaction, which rolls back; the other waits and goes on.
query('TRUNCATE ledger');
$one->query(
	'BEGIN;' . add_note('rolled back') . '; SAVEPOINT s;' . add_note('too'));
$two->send(add_note('waits'));
like($one->query('SELECT taskshed.remove_task(1 / 0)'),
	qr/ERROR/, 'an error in a transaction');
like(
	$one->query(add_note('x')),
	qr/current transaction is aborted/,
	'it is over');
$one->query('ROLLBACK');
is($two->result, 'waits', 'the other goes on');
$one->query('BEGIN;'
	  . add_note('kept') . ';'
	  . add_note('later', q{run_at => '2100-01-01'}));
$two->send(
	q{SELECT taskshed.pause_tasks(ARRAY['later']), taskshed.resume_tasks(ARRAY['later']), taskshed.remove_tasks(ARRAY['later', 'x'])}
);
$one->query('COMMIT');
is($two->result, '1|1|1', 'bulk calls see what the other has committed');
await_drained($node);
is(query(q{SELECT string_agg(what, ' ' ORDER BY what) FROM ledger}),
	'kept waits', 'what was committed has run');

# Settings of one transaction do not count in the next; a callback is changed by one,
# and the other's call is checked anew.
$node->safe_psql('postgres', 'CREATE SCHEMA s AUTHORIZATION app');
$one->query(
	'CREATE FUNCTION s.mine(what text) RETURNS void LANGUAGE sql AS $$ SELECT public.note(what) $$'
);
$one->query(
	q{BEGIN; SET LOCAL search_path = s; SELECT taskshed.add_task('mine', kwargs => '{"what": "mine"}'); COMMIT}
);
like(
	$two->query(
		q{SELECT taskshed.add_task('mine', kwargs => '{"what": "mine"}')}),
	qr/ERROR: .*does not exist/,
	'SET LOCAL was for one transaction');
is( $two->query(
		q{SELECT taskshed.add_task('s.mine', kwargs => '{"what": "mine"}', task_id => 'm')}
	),
	'm',
	'the other uses it');
await_drained($node);
$one->query(
	'DROP FUNCTION s.mine; CREATE FUNCTION s.mine(other text) RETURNS void LANGUAGE sql AS $$ SELECT public.note(other) $$'
);
like(
	$two->query(
		q{SELECT taskshed.add_task('s.mine', kwargs => '{"what": "mine"}')}),
	qr/ERROR: .*does not exist|no argument/,
	'a callback that was replaced');

# A role for one transaction, and one for a call.  SET ROLE is for whoever comes
# next, which is why docs/clients.md advises against it.
$node->safe_psql('postgres', 'CREATE ROLE other LOGIN; GRANT other TO app');
$one->query('BEGIN; SET LOCAL ROLE other;'
	  . add_note('local', q{run_at => '2100-01-01'})
	  . '; COMMIT');
is($two->query('SELECT current_user'),
	'app', 'SET LOCAL ROLE was for one transaction');
$two->query(add_note('named', q{run_at => '2100-01-01', owner => 'other'}));
is( query(
		q{SELECT string_agg(task_id, ' ' ORDER BY task_id) FROM taskshed.tasks WHERE owner = 'other'}
	),
	'local named',
	'tasks of another role');
$one->query('SET ROLE other');
is($two->query('SELECT current_user'),
	'other', 'SET ROLE is for the next client, too');
$two->query('RESET ROLE');
query(q{SELECT taskshed.remove_all_tasks(owner => 'other')});
$_->quit foreach ($one, $two);

# Statements prepared by the protocol.  (Named ones are known to pgbouncer from
# 1.21 on; before, they are the client's and the connection's that they share, so
# that only one client may have some.)
append_to_file(
	"$dir/script", q{
\set n random(1, 1000000000)
SELECT taskshed.add_task('public.note', kwargs => jsonb_build_object('what', :n::text));
SELECT taskshed.add_task('public.note', '2100-01-01', jsonb_build_object('what', 'later'), task_id => 'later ' || :client_id);
SELECT taskshed.remove_task('later ' || :client_id);
});

sub pgbench
{
	my ($mode, $clients, $transactions) = @_;
	my ($out, $err);

	query('TRUNCATE ledger');
	my $rc = IPC::Run::run(
		[
			'pgbench', '-n',          '-M', $mode,
			'-c',      $clients,      '-t', $transactions,
			'-f',      "$dir/script", $conninfo
		],
		'>',
		\$out,
		'2>',
		\$err);
	ok($rc, "$clients clients with -M $mode") or diag("$out$err");
	await_drained($node);
	is( query('SELECT count(*) FROM ledger'),
		$clients * $transactions,
		'each task has run once');
	return;
}
pgbench('simple',   3,                       50);
pgbench('extended', 3,                       50);
pgbench('prepared', $version >= 121 ? 3 : 1, 50);

kill 'INT', $bouncer->{KIDS}[0]{PID};
$bouncer->finish;
$node->stop;
done_testing();
