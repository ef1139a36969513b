
# The throw-away server, sessions in it, and what its processes use.
#
# Its durability is PostgreSQL's default.  It has enough memory and room for WAL
# that checkpoints do not decide what is measured.

package Server;

use strict;
use warnings;

use Bench;
use Exporter 'import';
use FindBin;
use IO::Handle;
use IPC::Open2;
use List::Util  qw(sum0);
use POSIX       ();
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  activity await configure database pids private_mb processes server_cpu server_wakeups
  session settle sql start_server stop_server value with_settings
);

my $work = $ENV{TMPDIR};
my $server_running;
my %session;

sub run_quietly
{
	my @command = @_;

	system("@command >>$work/bench.log 2>&1") == 0
	  or die "failed: @command (see $work/bench.log)\n"
	  . `tail -n 20 $work/bench.log`;
	return;
}

# Makes a server with the default durability.  Its data is below the work
# folder.
sub start_server
{
	my $data    = "$work/data";
	my @preload = ('taskshed', $have{pg_cron} ? 'pg_cron' : ());

	run_quietly("initdb -D $data -U postgres -A trust -E UTF8");
	open my $conf, '>>', "$data/postgresql.conf" or die "$data: $!\n";
	print $conf <<"END";
shared_preload_libraries = '@{[ join ',', @preload ]}'
listen_addresses = ''
unix_socket_directories = '$work'
max_connections = 100
max_worker_processes = @{[ 16 + 8 * $cores ]}
shared_buffers = 512MB
max_wal_size = 16GB
min_wal_size = 2GB
checkpoint_timeout = 30min
log_line_prefix = '%m [%p] %b '
log_checkpoints = off
taskshed.max_workers = $cores
END
	print $conf <<"END" if $have{pg_cron};
cron.database_name = 'cron'
cron.host = '$work'
END
	close $conf;
	run_quietly("pg_ctl -w -D $data -l $work/server.log start");
	$server_running = 1;
	sql('postgres', 'CREATE ROLE bench LOGIN');
	database('cron') if $have{pg_cron}; # its launcher is there from the start
	return;
}

sub stop_server
{
	return if !$server_running;
	$server_running = 0;
	%session        = ();
	system("pg_ctl -w -m fast -D $work/data stop >>$work/bench.log 2>&1");
	return;
}

# Settings of the server, by name => value; undef resets one.
sub configure
{
	my (%settings) = @_;
	my @commands = map {
		defined $settings{$_}
		  ? "ALTER SYSTEM SET $_ = '$settings{$_}'"
		  : "ALTER SYSTEM RESET $_"
	} sort keys %settings;

	sql('postgres', $_) foreach @commands;
	sql('postgres', 'SELECT pg_reload_conf()');
	return;
}

# A sub that does the same with settings that are not the usual ones.
sub with_settings
{
	my ($settings, $sub) = @_;

	return sub {
		configure(%$settings);
		my $figures = eval { $sub->(@_) };
		my $error   = $@;
		configure(map { $_ => undef } keys %$settings);
		die $error if $error;
		return $figures;
	};
}

# Makes sure that there is a database, once, with taskshed if its name begins
# so, and with what bench/*.sql put into it.
my %made;

sub database
{
	my ($name) = @_;

	return $name if $made{$name}++;
	sql('postgres', "CREATE DATABASE $name");
	sql($name,
		'CREATE EXTENSION taskshed; GRANT USAGE ON SCHEMA taskshed TO bench')
	  if $name =~ /^taskshed/;
	sql($name, 'CREATE EXTENSION pg_cron') if $name eq 'cron';
	run_quietly(
		"psql -X -q -v ON_ERROR_STOP=1 -v sleep_until=$FindBin::RealBin/sleep_until.so -U postgres -d $name -f bench/callbacks.sql"
	);
	return $name;
}


# Sessions: each a psql that stays, for a database, and a user and a number if
# there are to be several.

sub session
{
	my ($database, $user, $number) = @_;
	my $name = join '/', $database, $user || 'postgres', $number || 0;

	return $session{$name} if $session{$name};

	my $self = bless { name => $name }, 'Server::Session';

	# (That tasks will wait because taskshed is switched off is meant to be.)
	local $ENV{PGOPTIONS} = '-c client_min_messages=error';
	$self->{pid} = open2(
		$self->{out}, $self->{in},
		'psql',       '-XAtq',
		'-v',         'ON_ERROR_STOP=1',
		'-U',         $user || 'postgres',
		'-d',         $database);
	$self->{in}->autoflush(1);
	return $session{$name} = $self;
}

# Sends statements without waiting for them.
sub Server::Session::start
{
	my ($self, $sql) = @_;

	print { $self->{in} } "$sql\n;\n\\echo -- done\n";
	return;
}

# Waits for them, and returns the lines of their output.
sub Server::Session::finish
{
	my ($self) = @_;
	my @lines;
	my $out = $self->{out};

	while (defined(my $line = <$out>))
	{
		chomp $line;
		return @lines if $line eq '-- done';
		push @lines, $line;
	}
	delete $session{ $self->{name} };
	waitpid $self->{pid}, 0;
	die "a statement failed, see the messages above\n";
}

sub Server::Session::close
{
	my ($self) = @_;

	delete $session{ $self->{name} };
	close $self->{in};
	close $self->{out};
	waitpid $self->{pid}, 0;
	return;
}

sub sql
{
	my ($database, $sql, $user) = @_;
	my $session = session($database, $user);

	$session->start($sql);
	return $session->finish;
}

# The last line that comes back: of one number or text, that.
sub value
{
	return (sql(@_))[-1];
}

# Waits until a query says "t".
sub await
{
	my ($database, $query, $seconds, $pause) = @_;
	my $deadline = time() + ($seconds || 600);

	while ((value($database, $query) || '') ne 't')
	{
		die "waited in vain: $query\n" if time() > $deadline;
		sleep($pause || 0.02);
	}
	return;
}


# Processes

my $ticks = POSIX::sysconf(POSIX::_SC_CLK_TCK());

# The fields of /proc/PID/stat behind the name, from field 3 on.
sub stat_of
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/stat" or return;
	my $line = <$file>;
	close $file;
	return if !defined $line;
	$line =~ s/^.*\) //s;
	return split ' ', $line;
}

# The same of every process that there is, by its id.
sub processes
{
	my %of;

	foreach my $path (glob '/proc/[0-9]*')
	{
		my $pid  = substr $path, 6;
		my @stat = stat_of($pid);

		$of{$pid} = \@stat if @stat;
	}
	return \%of;
}

# The server's processes: the postmaster, and its children.
sub server_pids
{
	open my $file, '<', "$work/data/postmaster.pid" or die "no server\n";
	chomp(my $postmaster = <$file>);
	close $file;

	return $postmaster, grep { ((stat_of($_))[1] // 0) == $postmaster }
	  map { substr $_, 6 } glob '/proc/[0-9]*';
}

# CPU seconds of a process of one thread: to the nanosecond where the kernel
# says so, or else in ticks, of 10 ms.
sub cpu_of
{
	my ($pid) = @_;

	if (open my $file, '<', "/proc/$pid/schedstat")
	{
		my ($ns) = split ' ', <$file> // '';

		return $ns / 1e9 if $ns;
	}
	my @stat = stat_of($pid) or return 0;
	return ($stat[11] + $stat[12]) / $ticks;
}

# CPU seconds that the whole server has used so far: its living processes, and
# those that have ended, which the kernel adds up for the postmaster when it
# takes notice.  If it does that while we read, a process would be counted twice
# or not at all, so we read again.
sub server_cpu
{
	while (1)
	{
		my ($postmaster, @children) = server_pids();
		my @before = (stat_of($postmaster))[ 13, 14 ];
		my $cpu    = sum0(map { cpu_of($_) } $postmaster, @children);
		my @after  = (stat_of($postmaster))[ 13, 14 ];

		return $cpu + sum0(@after) / $ticks if "@before" eq "@after";
	}
	return;
}

# How often the server's processes have gone to sleep so far, each of which is
# a wake-up later: pid => times.
sub server_wakeups
{
	my %of;

	foreach my $pid (server_pids())
	{
		open my $file, '<', "/proc/$pid/status" or next;
		while (my $line = <$file>)
		{
			$of{$pid} = $1 if $line =~ /^voluntary_ctxt_switches:\s*(\d+)/;
		}
		close $file;
	}
	return \%of;
}

# CPU ticks and context switches of processes, with all their threads: pid =>
# [ ticks, switches ].
sub activity
{
	my @pids = @_;
	my %of;

	foreach my $pid (@pids)
	{
		my @stat     = stat_of($pid) or next;
		my $switches = 0;

		foreach my $path (glob "/proc/$pid/task/*/status")
		{
			open my $file, '<', $path or next;
			while (my $line = <$file>)
			{
				$switches += $1 if $line =~ /ctxt_switches:\s*(\d+)/;
			}
			close $file;
		}
		$of{$pid} = [ $stat[11] + $stat[12], $switches ];
	}
	return \%of;
}

# Private memory of a process in MB: what it has for itself.
sub private_mb
{
	my ($pid) = @_;
	my $kb = 0;

	open my $file, '<', "/proc/$pid/smaps_rollup" or return;
	while (my $line = <$file>)
	{
		$kb += $1 if $line =~ /^Private_\w+:\s*(\d+)/;
	}
	close $file;
	return $kb / 1024;
}

# Processes of the server, by a condition on pg_stat_activity.
sub pids
{
	my ($condition) = @_;

	return sql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE $condition");
}

# Nobody is to pay for what a contestant before has left behind.
sub settle
{
	my ($database) = @_;

	sql($database,  'VACUUM ANALYZE');
	sql('postgres', 'CHECKPOINT');
	return;
}

1;
