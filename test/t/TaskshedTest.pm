
# What the TAP tests of taskshed share: a node that has it preloaded, sessions
# that stay open, a ledger in which callbacks leave their traces, and a lock by
# which a test decides how long a callback runs.

package TaskshedTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  taskshed_node
  taskshed_database
  set_and_reload
  query
  app
  session
  psql_as
  await
  await_blocked
  await_no_task
  await_state
  await_status
  await_calm
  await_drained
  await_effects
  add_note
  effects_of
  plan_of
  state_of
  runs_of
  lag_of_ledger
  another_runs
  pids_of
  switches_of
  log_lines
  count_in_log
  no_crash
);

# What taskshed_database puts into a database.
#
# Callbacks commit their line of the ledger together with everything else that
# their run does, so the ledger says how often a task had its effect.  It has
# no unique constraint: a second effect must be seen and not be prevented.
#
# A callback that calls hold() runs until the test gives the advisory lock of
# that number back.
my $fixture = q{
CREATE TABLE ledger (
	what text NOT NULL,
	planned timestamptz,
	started timestamptz NOT NULL DEFAULT clock_timestamp(),
	pid integer NOT NULL DEFAULT pg_backend_pid(),
	who text NOT NULL DEFAULT session_user || '/' || current_user);
CREATE FUNCTION note(what text, planned timestamptz DEFAULT NULL) RETURNS void
LANGUAGE sql AS $$
	INSERT INTO public.ledger (what, planned) VALUES (note.what, note.planned);
$$;
CREATE FUNCTION planned() RETURNS timestamptz LANGUAGE sql AS $$
	SELECT run_at FROM taskshed.tasks WHERE worker_pid = pg_backend_pid();
$$;
CREATE FUNCTION hold(what text, lock integer DEFAULT 1) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(lock);
	PERFORM public.note(what);
END $$;
GRANT ALL ON ledger TO PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO PUBLIC;
GRANT USAGE ON SCHEMA taskshed TO PUBLIC;
};

# The server that a script has started first, which most of it is about.
my $main;

# Starts a server with taskshed.  Parameters: conf => lines for
# postgresql.conf, data => an empty folder for its data if these are not to be
# in the usual place, initdb => further options of initdb, init => what else
# the server's own init() is to be given,
# install_path => where another PostgreSQL is.
sub taskshed_node
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name,
		install_path => $params{install_path});

	symlink $params{data}, $node->data_dir if defined $params{data};
	$node->init(defined $params{initdb} ? (extra => $params{initdb}) : (),
		@{ $params{init} || [] });
	$node->append_conf(
		'postgresql.conf', q{
shared_preload_libraries = 'taskshed'
max_worker_processes = 20
log_statement = none
log_min_messages = info
log_line_prefix = '%m [%p] %b %q%u@%d '
});
	$node->append_conf('postgresql.conf', $params{conf})
	  if defined $params{conf};
	$node->start;
	taskshed_database($node, 'postgres');
	$main = $node unless defined $main;
	return $node;
}

# What SQL returns in the server that was started first.  An error ends the script.
sub query
{
	my ($sql, $database) = @_;

	return $main->safe_psql($database || 'postgres', $sql);
}

# There, too: what a function of taskshed returns to the role app.
sub app
{
	my ($call) = @_;

	return query("SET ROLE app; SELECT taskshed.$call");
}

# Gives a database the extension and the functions above.
sub taskshed_database
{
	my ($node, $database) = @_;

	$node->safe_psql($database, "CREATE EXTENSION taskshed; $fixture");
	return;
}

# Changes settings of the server, by name => value, while it runs, and waits
# until the schedulers have taken notice; 'undef' resets one.
sub set_and_reload
{
	my ($node, %settings) = @_;

	foreach my $name (sort keys %settings)
	{
		$node->safe_psql('postgres',
			defined $settings{$name}
			? "ALTER SYSTEM SET $name = '$settings{$name}'"
			: "ALTER SYSTEM RESET $name");
	}
	$node->reload;
	if (exists $settings{'taskshed.enabled'})
	{
		my $off = ($settings{'taskshed.enabled'} || 'on') eq 'off';

		await_status($node, 'postgres', $off ? 'disabled' : 'active');
	}
	return;
}

# Runs SQL in a session of that role, which never was another's.  Returns its
# output, or the SQLSTATE of the first error.
sub psql_as
{
	my ($node, $role, $sql, $database) = @_;
	my ($out, $err);

	$node->psql(
		$database || 'postgres',
		"\\set VERBOSITY sqlstate\n$sql",
		stdout       => \$out,
		stderr       => \$err,
		extra_params => [ '-U', $role ]);
	return $1 if $err =~ /(?:ERROR|FATAL): +(\w{5})\b/;
	return $out;
}

# Waits until a query returns true.  Fails the test if it never does.
#
# This one and all that wait by it are given a node, or a session in which to
# look: so no new process is started each time.
sub await
{
	my ($node, $query, $what, $database) = @_;
	my $state = q{
		SELECT * FROM taskshed.status; SELECT * FROM taskshed.tasks LIMIT 2;
		SELECT backend_type, pid, state, wait_event, query
		FROM pg_stat_activity WHERE backend_type LIKE 'taskshed%'};
	my ($rc, $out, $err);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	if ($node->isa('TaskshedTest::Session'))
	{
		return 1 if $node->poll($query);
		$out = $node->query("\\x on\n$state;\n\\x off\n");
		$err = '';
	}
	else
	{
		return 1 if $node->poll_query_until($database || 'postgres', $query);
		($rc, $out, $err) =
		  $node->psql($database || 'postgres', "\\x\n$state");
	}
	diag("while waiting until $what:\n$out\n$err");
	fail("waited until $what");
	return 0;
}

# Waits until so many callbacks run and wait for that advisory lock.
sub await_blocked
{
	my ($node, $n, $lock) = @_;

	$lock = 1 unless defined $lock;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node, qq{
		SELECT count(*) = $n FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE l.locktype = 'advisory' AND l.objid = $lock AND NOT l.granted
			AND a.backend_type = 'taskshed worker'},
		"$n callbacks wait for lock $lock");
}

# Waits until there are no tasks any more whose task_id is LIKE the pattern.
sub await_no_task
{
	my ($node, $pattern) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		"SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE task_id LIKE '$pattern')",
		"no task like $pattern is left");
}

# Waits until a task is in that state.
sub await_state
{
	my ($node, $task_id, $state) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		"SELECT state = '$state' FROM taskshed.tasks WHERE task_id = '$task_id'",
		"task $task_id is $state");
}

# Waits until the view status says that of a database.  One that is active may
# also be asleep, when it has nothing to do.
sub await_status
{
	my ($node, $database, $state) = @_;
	my $states = $state eq 'active' ? "'active', 'asleep'" : "'$state'";

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		"SELECT state IN ($states) FROM taskshed.status WHERE database = '$database'",
		"database $database is $state");
}

# Waits until nothing is due or runs.
sub await_calm
{
	my ($node) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state IN ('due', 'running'))},
		'all runs have ended');
}

# Waits until there are no tasks any more but those that tests have set aside,
# for a time far ahead.
sub await_drained
{
	my ($node) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		q{SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE run_at < now() + interval '1 year')},
		'all has run');
}

# Waits until something is so many times in the ledger, not more and not less.
sub await_effects
{
	my ($node, $what, $n, $database) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$node,
		"SELECT count(*) = $n FROM ledger WHERE what = '$what'",
		"\"$what\" is in the ledger $n times", $database);
}

# SQL that adds a task for a line in the ledger, both by that name; further
# parameters of add_task may follow.
sub add_note
{
	my ($task_id, $more, $callback) = @_;

	$callback = 'note' unless defined $callback;
	return
	  qq{SELECT taskshed.add_task('public.$callback', kwargs => '{"what": "$task_id"}', task_id => '$task_id'}
	  . (defined $more ? ", $more" : '') . ');';
}

# How often something is in the ledger.
sub effects_of
{
	my ($node, $what) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*) FROM ledger WHERE what = '$what'");
}

# What is planned of a task: its state, its number of runs, roughly when the next one is,
# and what that writes into the ledger.
sub plan_of
{
	my ($node, $task_id) = @_;

	return $node->safe_psql(
		'postgres', qq{
		SELECT state, run_count, CASE
			WHEN run_at = date_trunc('day', now() + interval '2 days') THEN 'in 2 days'
			WHEN run_at > now() THEN 'later' ELSE 'past' END, kwargs->>'what'
		FROM taskshed.tasks WHERE task_id = '$task_id'});
}

# How a task is: its state, attempt and number of runs, and how its last run ended.
sub state_of
{
	my ($node, $task_id) = @_;

	return $node->safe_psql(
		'postgres', qq{
		SELECT state, attempt, run_count, last_status, last_sqlstate
		FROM taskshed.tasks WHERE task_id = '$task_id'});
}

# The runs of a task: their status and attempt.
sub runs_of
{
	my ($node, $task_id) = @_;

	return $node->safe_psql(
		'postgres', qq{
		SELECT string_agg(status || ' ' || attempt, ', ' ORDER BY finished_at, run_id)
		FROM taskshed.runs WHERE task_id = '$task_id'});
}

# The lag of the runs in the ledger, as "p50 ..., p99 ..., max ... ms".
sub lag_of_ledger
{
	my ($node, $condition) = @_;

	return $node->safe_psql(
		'postgres', qq{
		SELECT format('p50 %s, p99 %s, max %s ms', round(p[1]::numeric, 2),
			round(p[2]::numeric, 2), round(p[3]::numeric, 2))
		FROM (SELECT percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP
				(ORDER BY extract(epoch FROM started - planned) * 1000)
			FROM ledger WHERE $condition) AS x(p)});
}

# Tests that a new task of that role is run, once.
my $n_others = 0;

sub another_runs
{
	my ($node, $role, $when) = @_;
	my $what = 'another ' . ++$n_others;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql('postgres', "SET ROLE $role; " . add_note($what));
	await_no_task($node, $what);
	is(effects_of($node, $what), '1', "$when: another task runs");
	return;
}

# The processes for which a condition on pg_stat_activity is true.
sub pids_of
{
	my ($node, $condition) = @_;
	my $query =
	  "SELECT pid FROM pg_stat_activity WHERE $condition ORDER BY pid";

	return split /\n/,
	  $node->isa('TaskshedTest::Session')
	  ? $node->safe_query($query)
	  : $node->safe_psql('postgres', $query);
}

# How often these processes have gone to sleep and been woken so far.  Those
# that have just ended do not count; nor does any where the system does not tell.
sub switches_of
{
	my $n = 0;

	foreach my $pid (@_)
	{
		open my $file, '<', "/proc/$pid/status" or next;
		while (<$file>)
		{
			$n += $1 if /ctxt_switches:\s+(\d+)/;
		}
		close $file;
	}
	return $n;
}

# The lines of the server's log that fit a pattern, from a position on.
sub log_lines
{
	my ($node, $pattern, $from) = @_;

	return join("\n",
		grep { /$pattern/ } split(/\n/, slurp_file($node->logfile, $from)));
}

# How often a pattern is in the server's log, from a position on.
sub count_in_log
{
	my ($node, $pattern, $from) = @_;

	return scalar(() = slurp_file($node->logfile, $from) =~ /$pattern/g);
}

# Tests that no process has crashed, by the log, nor left there what is given as
# another pattern.
sub no_crash
{
	my ($node, $also) = @_;
	my $bad = 'PANIC|TRAP|terminated by signal';

	$bad .= "|$also" if defined $also;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(log_lines($node, qr/$bad/), '', 'no crash');
}

# A session that stays open.
sub session
{
	my ($node, $database) = @_;

	return TaskshedTest::Session->new($node, $database || 'postgres');
}

# psql in the background.  (PostgreSQL::Test::Cluster has that too, but not
# the same one in all minor releases of 15.)
package TaskshedTest::Session;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

sub new
{
	my ($class, $node, $database) = @_;
	my $self = bless { in => '', out => '', err => '', n => 0 }, $class;

	$self->{timer} =
	  IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	$self->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr($database), '-f', '-' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err},
		$self->{timer});
	$self->query('SELECT 1');
	return $self;
}

# Sends a query and does not wait for its end.
sub send
{
	my ($self, $query) = @_;

	$self->{n}++;
	$self->{in} .=
	  "$query\n;\n\\echo '=$self->{n}='\n\\warn '=$self->{n}='\n";
	$self->{timer}->start($PostgreSQL::Test::Utils::timeout_default);
	$self->{run}->pump_nb;
	return;
}

# Has the query that was sent last ended?
sub is_done
{
	my ($self) = @_;
	my $end = "=$self->{n}=\n";

	$self->{run}->pump_nb;

	# (at the end only, since results may be long)
	return 2 ==
	  grep { length $_ >= length $end && substr($_, -length $end) eq $end }
	  @$self{ 'out', 'err' };
}

# Waits for the end of what was sent, and returns what it said, errors last.
sub result
{
	my ($self) = @_;
	my $result;

	$self->{run}->pump until $self->is_done;
	s/=\d+=\n//g foreach @$self{ 'out', 'err' };
	$result           = $self->{out} . $self->{err};
	$self->{messages} = $self->{err};
	$self->{out}      = $self->{err} = '';
	chomp $result;
	return $result;
}

# What the last result had in the way of errors and other messages.
sub messages
{
	my ($self) = @_;

	return $self->{messages};
}

sub query
{
	my ($self, $query) = @_;

	$self->send($query);
	return $self->result;
}

# Runs SQL, which must not fail, and returns what it said.
sub safe_query
{
	my ($self, $query) = @_;
	my $result = $self->query($query);

	die "$self->{messages}while running:\n$query"
	  if $self->{messages} =~ /(?:ERROR|FATAL|PANIC):/;
	return $result;
}

# Repeats a query until it returns true; false if it never does.
sub poll
{
	my ($self, $query) = @_;

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if $self->query($query) eq 't';
		usleep(100_000);
	}
	return 0;
}

sub quit
{
	my ($self) = @_;

	$self->{in} .= "\\q\n";
	return $self->{run}->finish;
}

1;
