
# Runs the measurements on a throw-away server, prints the table, and writes
# RESULTS.md and its charts into this folder.  scripts/bench calls it, in a copy of
# the repository, with taskshed installed.
#
# BENCH="drain lag" are the parts to run, QUICK=1 is the short form.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bench;
use Load;
use Report;
use Server;
use Time::HiRes qw(time);

use Calendar;
use Drain;
use Durable;
use Flows;
use Idle;
use Lag;
use Memory;
use OnTime;
use Recurring;
use Scheduling;
use Size;
use Snapshot;

# Those with many tasks in the table come last, and share them.
my @parts =
  qw(drain durable lag ontime scheduling recurring flows calendar snapshot idle size memory);
my %measure = (
	calendar   => \&Calendar::measure,
	drain      => \&Drain::measure,
	durable    => \&Durable::measure,
	flows      => \&Flows::measure,
	idle       => \&Idle::measure,
	lag        => \&Lag::measure,
	memory     => \&Memory::measure,
	ontime     => \&OnTime::measure,
	recurring  => \&Recurring::measure,
	scheduling => \&Scheduling::measure,
	size       => \&Size::measure,
	snapshot   => \&Snapshot::measure);

my %asked = map { $_ => 1 } split ' ', $ENV{BENCH} || "@parts";
foreach (keys %asked)
{
	die "BENCH: there is no $_, only: @parts\n" if !$measure{$_};
}

# The first line of a command's output.
sub said
{
	my ($command) = @_;
	my ($line)    = `$command 2>/dev/null`;

	chomp $line if defined $line;
	return $line;
}

sub about
{
	my ($model)  = grep { /^model name/ } split /\n/, `cat /proc/cpuinfo`;
	my ($memory) = `cat /proc/meminfo` =~ /^MemTotal:\s*(\d+)/m;

	$model = defined $model ? $model =~ s/.*:\s*//r : 'unknown processor';
	return (
		Commit  => $ENV{BENCH_COMMIT} || 'unknown',
		Machine => sprintf(
			'%d cores (%s), %d GB of memory, data on %s, Linux %s',
			$cores,                $model,
			$memory / 1024 / 1024, said("stat -f -c %T '$ENV{TMPDIR}'"),
			said('uname -r')),
		Versions => join(
			', ',
			value(
				'postgres',
				q{SELECT 'PostgreSQL ' || current_setting('server_version')}),
			$have{pg_cron} ? "pg_cron $have{pg_cron}" : (),
			$have{npm}     ? ($have{npm})             : ()),
		Settings => join(', ',
			map { "$_ = " . value('postgres', "SHOW $_") }
			  qw(shared_buffers max_wal_size checkpoint_timeout fsync synchronous_commit taskshed.synchronous_commit taskshed.max_workers)
		),
		Rounds => $size{rounds},
		keys %asked < @parts ? (Parts => join ' ', sort keys %asked) : (),
		$ENV{BENCH_SIZES}
		? (Sizes => "not the usual ones: $ENV{BENCH_SIZES}")
		: (),
		'When it began' => said('date -u +%Y-%m-%dT%H:%MZ'));
}

binmode $_, ':encoding(UTF-8)' foreach *STDOUT, *STDERR;

local $SIG{INT} = local $SIG{TERM} = sub { exit 1; };

END
{
	my $status = $?;

	stop_server();
	$? = $status;
}

my ($cron) =
  `cat \$(pg_config --sharedir)/extension/pg_cron.control 2>/dev/null` =~
  /default_version = '(.*)'/;
$have{pg_cron} = $cron if defined $cron;
$have{npm} = join ', ', 'Node.js ' . said("$ENV{BENCH_NODE}/node --version"),
  map  { s/.*"([^"]+)": "([^"]+)".*/$1 $2/r }
  grep { /"(graphile-worker|pg-boss)":/ } split /\n/,
  `cat $FindBin::RealBin/package.json`
  if $ENV{BENCH_NODE};

start_server();
my %about = about();
foreach my $part (grep { $asked{$_} } @parts)
{
	my $first = @rows;
	my $begin = time();
	my $load  = load_now();

	note($part);
	measurement();
	if (!eval { $measure{$part}->(); 1 })
	{
		(my $why = $@) =~ s/\s+/ /g;
		note("  $why");
		missing($part, $part, 'some or all of it', $why);
	}

	# (One that has no rounds is one.)
	add_round($load) if !@{ $measurements[-1]{rounds} };
	note('  ' . line_of($_)) foreach @rows[ $first .. $#rows ];
	note(sprintf '%s took %d s', $part, time() - $begin);
}
write_results($FindBin::RealBin, %about);
exit(ours_failed() ? 1 : 0);
