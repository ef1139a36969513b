"""When schedules run, worked out by other means than taskshed's: the expectations of test/t/066_oracle.pl.

    python3 test/oracle.py FOLDER HORIZON

writes FOLDER/cron.tsv, random expressions with a zone, a start and the next ten times, and
FOLDER/every.tsv, random intervals likewise; on its output how many there are of each kind.

What an expression matches is asked of croniter, which knows nothing of zones here: it is given local
times.  Zones come from Python's zoneinfo, as a table of the periods in which the offset is the same,
and what taskshed promises about them is stated once more below (see "instants").

    python3 test/oracle.py graphs SEED ROUND N
    python3 test/oracle.py nights SEED N STEPS

write random graphs of tasks that run after others, and what is to come of them, as JSON: for
test/t/091_random_graphs.pl.

ORACLE_SEED and ORACLE_TRIPLES say which, and how many.

Where croniter means something else by an expression, or has a fault, it is asked something that it
answers as we mean it; each of these is counted:

    days by "and"       Vixie's rule: if the field of the day of the month or that of the weekday begins
                        with * they must both match.  croniter looks whether the field allows all days
                        instead, so it is told which rule is meant.
    days by "or"        That means nothing else than ours if both fields leave some days out; otherwise the
                        result is every day.  If the day of the month never comes, croniter finds nothing at all,
                        and is asked for the weekday alone.
    nth with days       croniter takes "or" for "and" if there is a #: it is asked for each field alone.
    nth with weekdays   It refuses these in one list: asked for each alone.
    several last days   It goes wrong if L, or one of 29 to 31, is not alone: asked for each day alone.
    nearest weekday     It has no W: asked for the days around, of which the right one is picked here.
    last weekday        friL is its L5.
    step from a number  In the field of the weekday it goes on to 7, a second Sunday.
    range of one        Newer ones take 4-4, and 59/2 of the minute, for the whole round: asked for 4, and 59.
    ? and $             Other ways to write * and L.
    seconds             Its field of seconds is the last, and with one the weekday 7 never comes, or is refused with
                        # or L, so Sunday is 0.
"""

import bisect
import calendar
import collections
import datetime
import json
import math
import multiprocessing
import os
import pickle
import random
import re
import sys
import zoneinfo

try:
    from croniter import croniter, CroniterBadDateError
except ImportError:
    pass                        # only schedules need it

SEED = os.environ.get('ORACLE_SEED', '1')
TRIPLES = int(os.environ.get('ORACLE_TRIPLES', '20000'))
TIMES = 10

ZONES = ['Australia/Lord_Howe', 'Pacific/Apia', 'Africa/Casablanca', 'Antarctica/Troll', 'Asia/Kathmandu',
         'Europe/Berlin', 'America/New_York', 'America/St_Johns', 'America/Sao_Paulo', 'Asia/Tehran',
         'Africa/Cairo', 'Pacific/Chatham', 'Pacific/Kwajalein', 'America/Scoresbysund', 'Europe/Dublin',
         'Asia/Gaza', 'UTC']

EPOCH = datetime.datetime(1970, 1, 1)
DAY = 86400


def seconds(*when):
    """A time without a zone, as seconds."""
    return int((datetime.datetime(*when) - EPOCH).total_seconds())


def naive(t):
    return EPOCH + datetime.timedelta(seconds=t)


# ---------------------------------------------------------------------------------------------------
# Zones

class Zone:
    """The periods of a zone: from begins[i] on the offset is offsets[i]."""

    def __init__(self, name, horizon):
        zone = zoneinfo.ZoneInfo(name)

        def offset(t):
            return int((datetime.datetime.fromtimestamp(t, datetime.timezone.utc)
                        .astimezone(zone).utcoffset()).total_seconds())

        t = seconds(1985, 1, 1)
        self.begins, self.offsets = [-math.inf], [offset(t)]
        while t < horizon + 400 * DAY:
            later = t + DAY // 2
            if offset(later) != offset(t):
                low, high = t, later
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (middle, high) if offset(middle) == offset(t) else (low, middle)
                self.begins.append(high)
                self.offsets.append(offset(high))
            t = later
        self.ends = self.begins[1:] + [math.inf]

    def period(self, t):
        return bisect.bisect_right(self.begins, t) - 1

    def local(self, t):
        return t + self.offsets[self.period(t)]

    def instants(self, local):
        """When it is that time there: once, twice, or never."""
        near = self.period(local)
        return [local - self.offsets[i] for i in range(max(near - 3, 0), min(near + 4, len(self.begins)))
                if self.begins[i] <= local - self.offsets[i] < self.ends[i]]

    def once(self, local):
        """The rule for a time of day: the first time, or else right after the gap that it is in."""
        found = self.instants(local)
        if found:
            return found[0]
        near = self.period(local)
        for i in range(max(near - 3, 1), min(near + 4, len(self.begins))):
            if local - self.offsets[i] < self.begins[i] <= local - self.offsets[i - 1]:
                return self.begins[i]
        raise AssertionError('no gap')

    def gap_end(self, local):
        """The local time right after a gap, for one that is in it; otherwise None."""
        return None if self.instants(local) else self.local(self.once(local))


zones = {}


# ---------------------------------------------------------------------------------------------------
# Expressions

MONTHS = 'jan feb mar apr may jun jul aug sep oct nov dec'.split()
WEEKDAYS = 'sun mon tue wed thu fri sat'.split()


def without_ranges_of_one(expression):
    def plain(part, last):
        one = re.fullmatch(r'(\w+)-\1(/\d+)?|(%s)/\d+' % last, part, re.I)
        return one[1] or one[3] if one else part

    return ' '.join(','.join(plain(part, last) for part in field.split(','))
                    for field, last in zip(expression.split(), ['59', '23', '31', '12', '6', '59']))


class Query:
    """The matches of one question to croniter, in local time."""

    def __init__(self, expression, day_or=True, pick=None):
        self.cron = croniter(without_ranges_of_one(expression), 0.0, day_or=day_or, max_years_between_matches=120)
        self.pick = pick
        self.asked = self.answer = None

    def after(self, local):
        if self.asked is not None and self.asked <= local < self.answer:
            return self.answer
        self.asked, t = local, local
        while True:
            try:
                t = self.cron.get_next(float, start_time=float(t))
            except (CroniterBadDateError, OverflowError, ValueError):
                t = math.inf
            if t == math.inf or t > seconds(2150, 1, 1):
                self.answer = math.inf
                return self.answer
            if self.pick is None or self.pick(naive(t)):
                self.answer = int(t)
                return self.answer
            t = (t // DAY + 1) * DAY - 1


def nearest_weekday(day):
    """Picks the weekday nearest to a day of the month, in the same month."""
    def pick(t):
        last = calendar.monthrange(t.year, t.month)[1]
        if (day or last) > last:
            return False
        d = t.replace(day=day or last)
        if d.weekday() == 5:
            d += datetime.timedelta(days=-1 if d.day > 1 else 2)
        elif d.weekday() == 6:
            d += datetime.timedelta(days=1 if d.day < last else -2)
        return t.day == d.day
    return pick


def values(field, low, high, names=()):
    """What a field without L, # and W allows."""
    def number(word):
        return names.index(word.lower()) + (1 if low == 1 else 0) if word.lower() in names else int(word)

    found = set()
    for part in field.split(','):
        span, _, step = part.partition('/')
        if span in '*?':
            first, last = low, high
        else:
            first, _, last = span.partition('-')
            first = number(first)
            last = number(last) if last else high if step else first
            if last == 0 < first:
                last = 7
        found.update(range(first, last + 1, int(step or 1)))
    return found


class Expression:
    def __init__(self, fields, kinds):
        """The fields as we write them: seconds, or None, first."""
        second, minute, hour, day, month, weekday = fields
        self.text = ' '.join(f for f in fields if f is not None)
        self.fixed = not re.search(r'[*/]', minute + hour)
        self.ask_each = []

        if second is not None:
            kinds.append('seconds')
        if '?' in day + weekday or '$' in day:
            kinds.append('? and $')
        day, weekday = day.replace('?', '*').replace('$', 'L'), weekday.replace('?', '*')
        both = day[0] == '*' or weekday[0] == '*'
        kinds.append('a time of day' if self.fixed else 'a wildcard or step')

        if second is not None and re.search('7|sun', weekday, re.I) and not re.search('[#*L]', weekday, re.I):
            weekday = ','.join(str(d) for d in sorted({d % 7 for d in values(weekday, 0, 7, WEEKDAYS)}))

        start_step = re.fullmatch(r'(\d)/(\d)', weekday)
        if start_step:
            kinds.append('step from a number')
            weekday = '%s-%d/%s' % (start_step[1], max(int(start_step[1]), 6), start_step[2])

        # the parts of each field that croniter must be asked for one by one, with what to pick of them
        days, weekdays, special = [(day, None)], [(weekday, None)], False
        if 'W' in day.upper():
            kinds.append('nearest weekday')
            days = []
            for part in day.upper().split(','):
                if part == 'LW':
                    days.append(('26-31', nearest_weekday(None)))
                elif part.endswith('W'):
                    n = int(part[:-1])
                    days.append(('%d-%d' % (max(n - 2, 1), min(n + 2, 31)), nearest_weekday(n)))
                else:
                    days.append((part, None))
        elif day != '*' and day.upper() != 'L':
            last = [p for p in day.split(',') if p.upper() == 'L']
            rest = [p for p in day.split(',') if p.upper() != 'L']
            numbers = sorted(values(','.join(rest), 1, 31)) if rest else []
            late = [n for n in numbers if n > 28]
            if late and len(late) < len(numbers) or len(late) > 1 or last:
                kinds.append('several last days')
                days = [(str(n), None) for n in late] + [(p, None) for p in last[:1]]
                if len(late) < len(numbers):
                    days.append((','.join(str(n) for n in numbers if n <= 28), None))
        if '#' in weekday or re.search('[0-9a-z]L', weekday, re.I):
            special = True
            kinds.append('nth weekday' if '#' in weekday else 'last weekday')
            nth = [p for p in weekday.split(',') if '#' in p or p.upper().endswith('L')]
            plain = [p for p in weekday.split(',') if p not in nth]
            weekdays = [(re.sub('^7', '0', p) if '#' in p else 'L%d' % (min(values(p[:-1], 0, 7, WEEKDAYS)) % 7), None)
                        for p in nth]
            if plain:
                kinds.append('nth with weekdays')
                weekdays.append((','.join(plain), None))

        if not both:
            kinds.append('days by "or"')
            if ('L' not in day.upper() and 'W' not in day.upper() and len(values(day, 1, 31)) == 31 or
                    not special and len({d % 7 for d in values(weekday, 0, 7, WEEKDAYS)}) == 7):
                days, weekdays, both = [('*', None)], [('*', None)], True
            elif special:
                kinds.append('nth with days')
        elif day not in '*' and weekday not in '*':
            kinds.append('days by "and"')

        def ask(d, w, day_or, pick=None):
            question = ' '.join([minute, hour, d, month, w] + ([second] if second is not None else []))
            if without_ranges_of_one(question) != question:
                kinds.append('range of one')
            self.ask_each.append((question, day_or, pick))

        if both:
            for d, pick in days:
                for w, _ in weekdays:
                    ask(d, w, False, pick)
        elif len(days) == 1 and len(weekdays) == 1 and not days[0][1] and not special:
            if Query('0 0 %s %s *' % (day, month)).after(0) < math.inf:
                ask(day, weekday, True)
            else:
                ask('*', weekday, False)
        else:
            for d, pick in days:
                ask(d, '*', False, pick)
            for w, _ in weekdays:
                ask('*', w, False)
        self.queries = [Query(*each) for each in self.ask_each]

    def after(self, local):
        """The next match in local time."""
        return min(query.after(local) for query in self.queries)

    def times(self, zone, start, horizon):
        """The rule: when a schedule runs after a time."""
        found = []
        if self.fixed:
            # each time of day once
            local = self.after(zone.local(start))
            while len(found) < TIMES and local < horizon:
                t = zone.once(local)
                if t > start and (not found or t > found[-1]) and t < horizon:
                    found.append(t)
                # the rest of a gap has the same time
                end = zone.gap_end(local)
                local = self.after(local if end is None else max(local, end - 1))
            return found

        # whenever the clock shows a match
        i = zone.period(start)
        while len(found) < TIMES and i < len(zone.begins) and zone.begins[i] < horizon:
            offset = zone.offsets[i]
            local = self.after(max(start, zone.begins[i] - 1) + offset)
            while len(found) < TIMES and local - offset < min(zone.ends[i], horizon):
                found.append(local - offset)
                local = self.after(local)
            i += 1
        return found


def random_field(rng, low, high, often=None):
    """A field of numbers, of any form.  often: values that are to come up."""
    def one():
        return rng.choice(often) if often and rng.random() < 0.6 else rng.randint(low, high)

    form = rng.random()
    if form < 0.4:
        return str(one())
    if form < 0.55:
        return ','.join(str(one()) for _ in range(rng.randint(2, 4)))
    first, last = sorted([one(), one()])
    if form < 0.7:
        return '%d-%d' % (first, last)
    if form < 0.8:
        return '%d-%d/%d' % (first, last, rng.randint(1, 7))
    if form < 0.9:
        return '*/%d' % rng.randint(1, high - low)
    if form < 0.92 and (low, high) != (0, 6):
        return '%d/%d' % (one(), rng.randint(1, 7))
    return '%d,%d-%d' % (one(), first, last)


def name(rng, names, text):
    """Perhaps numbers that stand alone become names; not steps."""
    if rng.random() < 0.5 or '/' in text:
        return text
    word = rng.choice([str.lower, str.upper, str.capitalize])
    base = 1 if len(names) == 12 else 0
    return re.sub(r'\d+', lambda m: word(names[(int(m[0]) - base) % len(names)]), text)


def random_expression(rng, kinds, hours):
    second = rng.choice(['*', '*/20', '0', '30', '15,45', '10-20/5']) if rng.random() < 0.12 else None
    minute = '*' if rng.random() < 0.06 else random_field(rng, 0, 59, [0, 1, 15, 30, 59])
    hour = '*' if rng.random() < 0.2 else random_field(rng, 0, 23, hours)
    month = '*' if rng.random() < 0.7 else random_field(rng, 1, 12)
    # (7 is Sunday, too, but at the end of a range only)
    weekday = '*' if rng.random() < 0.5 else random_field(rng, 0, 6)
    day = '*' if rng.random() < 0.5 else random_field(rng, 1, 31, [1, 28, 29, 30, 31])

    month = name(rng, MONTHS, month)
    if rng.random() < 0.12:
        weekday = ','.join('%s#%d' % (rng.choice(WEEKDAYS + list('01234567')), rng.randint(1, 5))
                           for _ in range(rng.choice([1, 1, 1, 2])))
        if rng.random() < 0.2:
            weekday += ',' + rng.choice(WEEKDAYS)
    elif rng.random() < 0.05:
        weekday = rng.choice(WEEKDAYS + list('01234567')) + rng.choice('Ll')
    elif rng.random() < 0.1:
        weekday = rng.choice(['7', '5-7', '1-7', '0-7', '7,3', '?', '0/2', '1/2', '3/3', 'fri-sun'])
    else:
        weekday = name(rng, WEEKDAYS, weekday)
    if rng.random() < 0.15:
        day = rng.choice(['L', '$', 'l', '1,L', '15,L', '31,L', '?'])
    elif rng.random() < 0.08:
        day = rng.choice(['%dW' % rng.randint(1, 31), '1W', '15w', '30W', '31W', 'LW', '1W,15,LW'])
    return Expression([second, minute, hour, day, month, weekday], kinds)


NICKNAMES = {'@hourly': '0 * * * *', '@daily': '0 0 * * *', '@midnight': '0 0 * * *', '@weekly': '0 0 * * 0',
             '@monthly': '0 0 1 * *', '@yearly': '0 0 1 1 *', '@annually': '0 0 1 1 *'}


class Nickname(Expression):
    def __init__(self, nickname, kinds):
        super().__init__([None] + NICKNAMES[nickname].split(), kinds)
        kinds.append('nickname')
        self.text = nickname


# ---------------------------------------------------------------------------------------------------
# Intervals

def add(zone, anchor, months, days, rest, n):
    """anchor + n times an interval, in a zone: months, then days, by the calendar, then the rest."""
    t = anchor
    if n * months or n * days:
        d = naive(zone.local(anchor))
        year, month = divmod(d.year * 12 + d.month - 1 + n * months, 12)
        last = calendar.monthrange(year, month + 1)[1]
        d = d.replace(year=year, month=month + 1, day=min(d.day, last)) + datetime.timedelta(days=n * days)
        t = zone.once(int((d - EPOCH).total_seconds()))
    return t + n * rest


def interval_times(zone, anchor, months, days, rest, start, horizon):
    # The times are not quite in order around gaps, so a few more are worked out.
    length = months * 30.44 * DAY + days * DAY + rest
    n = max(int((start - anchor) / length * 0.99) - 5, 0)
    found = set()
    while len([t for t in found if t > start]) < TIMES + 5:
        t = add(zone, anchor, months, days, rest, n)
        if t > horizon:
            break
        found.add(t)
        n += 1
    return sorted(t for t in found if t > start)[:TIMES]


# ---------------------------------------------------------------------------------------------------
# Random triples

def random_start(rng, zone):
    """A time from 1990 to 2035, often about when the zone's offset changes; hours of the day there."""
    low, high = seconds(1990, 1, 1), seconds(2035, 1, 1)
    changes = [t for t in zone.begins if low < t < high]
    if not changes or rng.random() < 0.4:
        return rng.randrange(low, high), None
    change = rng.choice(changes)
    hour = naive(zone.local(change)).hour
    start = change + rng.choice([rng.randint(-3 * 3600, 3 * 3600), rng.randint(-3 * DAY, DAY), 0, -1, 1])
    return start, [(hour + n) % 24 for n in (-2, -1, -1, 0, 0, 1)]


def stamp(t):
    return naive(t).strftime('%Y-%m-%d %H:%M:%S+00')


def cron_line(job):
    i, horizon = job
    rng = random.Random('%s cron %d' % (SEED, i))
    kinds = []
    zone_name = rng.choice(ZONES)
    zone = zones[zone_name]
    start, hours = random_start(rng, zone)
    expression = (Nickname(rng.choice(list(NICKNAMES)), kinds) if rng.random() < 0.01 else
                  random_expression(rng, kinds, hours))
    kinds.append('near a change of offset' if hours else 'at any time')
    times = expression.times(zone, start, horizon)
    if len(times) < TIMES:
        kinds.append('fewer times than %d before the horizon' % TIMES if times else 'never')
    micros = rng.choice(['', '', '.000001', '.999999'])
    line = [expression.text, zone_name, stamp(start).replace('+', micros + '+'),
            '{%s}' % ','.join('"%s"' % stamp(t) for t in times)]
    return '\t'.join(line), kinds


def every_line(job):
    i, horizon = job
    rng = random.Random('%s every %d' % (SEED, i))
    zone_name = rng.choice(ZONES)
    zone = zones[zone_name]
    anchor, hours = random_start(rng, zone)
    if rng.random() < 0.3:
        # the end of a month
        d = naive(anchor)
        d = d.replace(day=calendar.monthrange(d.year, d.month)[1])
        anchor = int((d - EPOCH).total_seconds())
    months, days, rest = rng.choice([
        (1, 0, 0), (rng.randint(1, 30), 0, 0), (0, 1, 0), (0, rng.randint(1, 40), 0), (0, 7, 0), (12, 0, 0),
        (rng.randint(1, 5), rng.randint(1, 20), 0), (0, rng.randint(1, 5), rng.randint(1, DAY)),
        (rng.randint(1, 3), 0, rng.randint(1, DAY)), (1, -1, 0), (0, 0, rng.randint(1, 5 * DAY))])
    start = anchor + rng.choice([0, -1, 1, rng.randint(0, 1000 * DAY), rng.randint(0, 5000 * DAY)])
    times = interval_times(zone, anchor, months, days, rest, start, horizon)
    kinds = ['months' if months else 'days' if days else 'exact time']
    return '\t'.join(['%d months %d days %d seconds' % (months, days, rest), zone_name, stamp(anchor), stamp(start),
                      '{%s}' % ','.join('"%s"' % stamp(t) for t in times)]), kinds


# ---------------------------------------------------------------------------------------------------
# Tasks that run after others
#
# What is promised about them, once more, as a model that knows no transactions: at a time one thing happens, and what
# happens next is drawn.  What depends on the order cannot be told beforehand, so each step of a graph is modelled
# several times, and one that has not the same end each time is left out.

ORDERS = 4
FAILURES = ('failed', 'timeout')


def literal(text):
    return "'%s'" % text.replace("'", "''")


def names(tasks):
    return 'ARRAY[%s]::text[]' % ', '.join(literal(t) for t in tasks)


class Undecided(Exception):
    pass


class Edge:
    """What a task knows of one that it runs after."""

    def __init__(self):
        self.ends = []          # how it has ended, each time; the last counts
        self.gone = False

    @property
    def status(self):
        return self.ends[-1] if self.ends else None


class Task:
    def __init__(self, name, rank, **more):
        self.name, self.rank = name, rank
        self.group = None
        self.after_status = 'succeeded'
        self.edges = {}
        self.state = 'due'      # or waiting, failed
        self.paused = False
        self.max_attempts = 1
        self.fails, self.how = 0, 'raise'
        self.adds = None        # (name, before): what its run adds
        self.lost = False       # it has failed since one that it was to run after was removed
        self.told = 'exactly'   # how much is known of what parent_results() says: or any, failure
        self.last = None
        self.__dict__.update(more)


class Graph:
    """The tasks of a graph, and what has come of them."""

    def __init__(self, rng):
        self.rng = rng
        self.tasks = {}
        self.children = collections.defaultdict(dict)
        self.by_hand = []
        self.effects = []       # (task, how much is known, {parent: statuses})
        self.runs = collections.Counter()
        self.statuses = collections.defaultdict(set)

    def copy(self, seed):
        rng, self.rng = self.rng, None
        other = pickle.loads(pickle.dumps(self))
        self.rng, other.rng = rng, random.Random(seed)
        return other

    def shuffled(self, some):
        some = list(some)
        self.rng.shuffle(some)
        return some

    # what happens by itself

    def settle(self):
        """Have all run that can."""
        while True:
            ready = [(t, False) for t in self.tasks.values() if t.state == 'due' and not t.paused]
            ready += [(self.tasks[name], True) for name in self.by_hand if name in self.tasks]
            if not ready:
                self.by_hand = []
                return
            task, by_hand = self.rng.choice(ready)
            if by_hand:
                self.by_hand.remove(task.name)
            elif task.name in self.by_hand:
                continue        # that comes first
            self.run(task, by_hand)

    def run(self, task, by_hand):
        attempts = 1 if by_hand else task.max_attempts
        status = 'succeeded' if task.fails < attempts else 'timeout' if task.how == 'timeout' else 'failed'
        if task.adds and status == 'succeeded':
            before = self.tasks.get(task.adds[1])
            if before is None or before.state != 'waiting':
                status = 'failed'
        failures = min(task.fails, attempts) if status == 'succeeded' else attempts
        if failures:
            self.runs[task.name, 'timeout' if task.how == 'timeout' else 'failed'] += failures
        task.last, task.lost = status, False
        if status == 'succeeded':
            self.runs[task.name, status] += 1
            self.effects.append((task.name, 'any' if by_hand else task.told, task.after_status, list(task.edges)))
            if task.adds:
                self.add(Task(task.adds[0], task.rank), before=task.adds[1:])
        if not by_hand:
            if status == 'succeeded':
                del self.tasks[task.name]
            else:
                task.state = 'failed'
        self.end(task.name, status, status == 'succeeded' and not by_hand)

    def end(self, name, status, gone):
        """Tell those that run after a task."""
        self.statuses[name].add(status)
        for child in self.shuffled(self.children[name]):
            child = self.tasks.get(child)
            edge = child and child.edges.get(name)
            if edge is None or child.state != 'waiting' or edge.status == 'succeeded':
                continue
            edge.ends.append(status)
            edge.gone = gone
            self.consider(child)

    def consider(self, task):
        """Is that all that a task has waited for?"""
        wants = task.after_status
        edges = task.edges.values()
        if wants == 'failed' and any(e.status in FAILURES for e in edges):
            task.state, task.told = 'due', 'failure'
        elif wants == 'succeeded' and any(e.gone and e.ends and e.status != 'succeeded' for e in edges):
            self.skip(task)
        elif all(e.status == 'succeeded' if wants == 'succeeded' else e.ends for e in edges):
            if wants == 'failed':
                self.skip(task)
            else:
                task.state, task.told = 'due', 'exactly'

    def skip(self, task):
        del self.tasks[task.name]
        self.runs[task.name, 'skipped'] += 1
        self.end(task.name, 'skipped', True)

    # what is done to it

    def hold(self, *some):
        for name in some:
            self.tasks[name].paused = True

    def resume(self, *some):
        for name in some:
            self.tasks[name].paused = False

    def remove(self, *some):
        for name in some:
            del self.tasks[name]
        lost = []
        for child in self.tasks.values():
            for name in some:
                edge = child.edges.get(name)
                if edge is None or child.state != 'waiting':
                    continue
                edge.gone = True
                if not edge.ends or child.after_status == 'succeeded' and edge.status != 'succeeded':
                    lost.append(child)
        lost = self.shuffled(dict.fromkeys(lost))
        for child in lost:
            child.state, child.lost, child.told = 'failed', True, 'any'
            child.last = 'failed'
            self.runs[child.name, 'failed'] += 1
        for child in lost:
            self.end(child.name, 'failed', False)

    def retry(self, name, fails):
        task = self.tasks[name]
        task.state, task.lost, task.fails = 'due', False, fails
        self.by_hand = [n for n in self.by_hand if n != name]

    def run_by_hand(self, name):
        self.by_hand.append(name)

    def replace(self, name, after, after_status, fails):
        """Add a task again.  after: None, or names."""
        task = self.tasks[name]
        task.lost, task.fails, task.after_status = False, fails, after_status
        if task.adds:
            task.adds = None
        if after is None:
            task.edges, task.state, task.told = {}, 'due', 'exactly'
            return
        old, task.edges = task.edges, {}
        for parent in after:
            self.join(task, parent, old.get(parent))
        task.state = 'waiting'
        self.consider(task)

    def join(self, child, parent, old=None):
        edge = child.edges[parent] = old or Edge()
        self.children[parent][child.name] = True
        if old is None and parent in self.tasks and self.tasks[parent].state == 'failed':
            edge.ends.append(self.tasks[parent].last)

    def add(self, task, after=(), before=()):
        self.tasks[task.name] = task
        for parent in after:
            self.join(task, parent)
        for name in before:
            self.join(self.tasks[name], task.name)
        if after:
            task.state = 'waiting'
            self.consider(task)

    # what is to be seen

    def waiting_for(self, task):
        if task.state != 'waiting':
            return ''
        found = sorted(p for p, e in task.edges.items()
                       if not e.ends or task.after_status == 'succeeded' and e.status != 'succeeded')
        return ','.join(found) if len(task.edges) < 20 else 'many'

    def show(self):
        """As the test asks the server for it: a line for each thing."""
        lines = []
        for t in self.tasks.values():
            state = 'failed' if t.state == 'failed' else 'paused' if t.paused else t.state
            lines.append('%s is %s%s|%s|%s' % (t.name, state, ' lost' if t.lost else '', self.waiting_for(t),
                                               t.last or ''))
            if t.state == 'waiting':
                ends = [e.status for e in t.edges.values()]
                failed = sum(s in FAILURES for s in ends)
                ended = len(ends) - ends.count(None)
                lines.append('%s has %d, %d ended, %d succeeded, %d failed' %
                             (t.name, len(ends), ended, ends.count('succeeded'), failed))
        for (name, status), n in self.runs.items():
            lines.append('%s: %d %s' % (name, n, status))
        for name, n in collections.Counter(effect[0] for effect in self.effects).items():
            lines.append('%s: %d effects' % (name, n))
        return sorted(lines)

    def told(self):
        """What parent_results() may have said in each run: a line for each parent, with how it may have ended."""
        runs = collections.Counter()
        for name, known, after_status, parents in self.effects:
            runs[name] += 1
            for parent in parents:
                ends = self.statuses[parent]
                if known == 'exactly' and after_status == 'succeeded':
                    ends = {'succeeded'}
                yield [name, runs[name], parent, '{%s}' % ','.join(sorted(ends)), known]


class Story:
    """A graph, and what is done to it step by step: the SQL of each step, and what is to come of it."""

    def __init__(self, rng, prefix):
        self.rng, self.prefix = rng, prefix
        self.graph = Graph(rng)
        self.sql, self.steps = [], []
        self.kinds = collections.Counter()
        self.news = 0

    def fate(self, task):
        r = self.rng.random()
        task.max_attempts = self.rng.choice([1, 1, 2, 3])
        if r < 0.70:
            task.fails = 0
        elif r < 0.80:
            task.fails = self.rng.randrange(task.max_attempts)
        else:
            task.fails = 99
        task.how = self.rng.choice(['raise', 'raise', 'commit'])
        if task.fails == 99 and self.rng.random() < 0.05:
            task.how = 'timeout'

    def plan(self, task):
        return "SELECT plan(%s, %d, '%s')" % (literal(task.name), task.fails, task.how)

    def spec(self, task, after=None, after_group=None, before=None):
        spec = {'callback': 'public.work', 'task_id': task.name, 'kwargs': {'task': task.name},
                'max_attempts': task.max_attempts, 'retry_delay': '20 ms', 'retry_backoff': 1}
        if task.adds:
            spec['kwargs']['adds'], spec['kwargs']['before'] = task.adds
        if task.how == 'timeout':
            spec['timeout'] = '100 ms'
        if task.group:
            spec['group_id'] = task.group
        if task.paused:
            spec['paused'] = True
        if after is not None:
            spec['after'] = after
        if after_group is not None:
            spec['after_group'] = after_group
        if before is not None:
            spec['before'] = before
        if task.after_status != 'succeeded' or after is not None and self.rng.random() < 0.1:
            spec['after_status'] = task.after_status
        return spec

    def add_tasks(self, specs):
        return 'SELECT count(taskshed.add_tasks(%s))' % literal(json.dumps(specs))

    def add_all(self):
        """Add a graph, whose beginnings are held."""
        rng, graph = self.rng, self.graph
        n = rng.choice([rng.randint(20, 40), rng.randint(20, 80), rng.randint(80, 200)])
        width = rng.choice([3, 10, n])
        calls = rng.choice([1, 1, 2, 4])
        likely = rng.choice([0.05, 0.2, 0.5])
        groups, open_groups, specs = 0, [], []
        for i in range(n):
            task = Task('%s/%s%03d' % (self.prefix, rng.choice('abc'), i), float(i))
            self.fate(task)
            task.after_status = rng.choice(['succeeded', 'succeeded', 'succeeded', 'ended', 'ended', 'failed'])
            earlier = list(graph.tasks)[-width:]
            after, group = [], None
            if earlier and rng.random() > likely:
                after = rng.sample(earlier, min(len(earlier), rng.choice([1, 1, 2, 2, 3, 5, 25])))
            if open_groups and rng.random() < 0.05:
                group = open_groups.pop(rng.randrange(len(open_groups)))
                self.kinds['after_group'] += 1
            if rng.random() < 0.02:
                open_groups.append('%s/group%d' % (self.prefix, groups))
                groups += 1
            if open_groups and rng.random() < 0.5:
                task.group = rng.choice(open_groups)
            members = [t.name for t in graph.tasks.values() if group and t.group == group]
            if not after and not members:
                if rng.random() < 0.9 or calls > 1:
                    task.paused = True
                if group is None:
                    task.after_status = 'succeeded'
            elif rng.random() < 0.03:
                task.paused = True
                self.kinds['paused child'] += 1
            if task.after_status == 'ended' and after and rng.random() < 0.1:
                # a member that finds more to do
                adder = graph.tasks[after[0]]
                if not adder.adds:
                    adder.adds = (adder.name + '+', task.name)
                    next(s for s in specs if s['task_id'] == adder.name)['kwargs'].update(
                        adds=adder.adds[0], before=adder.adds[1])
                    self.kinds['before from inside'] += 1
            specs.append(self.spec(task, after or None, group))
            graph.add(task, dict.fromkeys(after + members))
        self.sql += [self.plan(t) for t in graph.tasks.values()]
        parts = sorted(rng.sample(range(1, n), calls - 1))
        for first, last in zip([0] + parts, parts + [n]):
            part = specs[first:last]
            rng.shuffle(part)
            self.sql.append(self.add_tasks(part))
        return True

    def release(self):
        some = [t.name for t in self.graph.tasks.values() if t.paused]
        self.graph.resume(*some)
        self.sql.append('SELECT taskshed.resume_tasks(%s)' % names(some))
        return True

    def pick(self, *states):
        found = [t for t in self.graph.tasks.values() if t.state in states]
        return self.rng.choice(found) if found else None

    def remove_some(self):
        task = self.pick('waiting', 'waiting', 'failed', 'due')
        if task is None:
            return False
        some = [task.name]
        while self.rng.random() < 0.4:
            some.append(self.rng.choice(list(self.graph.tasks)))
        some = list(dict.fromkeys(some))
        self.graph.remove(*some)
        if len(some) == 1:
            self.sql.append('SELECT taskshed.remove_task(%s)' % literal(task.name))
        else:
            self.sql.append('SELECT taskshed.remove_tasks(%s)' % names(some))
        self.kinds['removed'] += len(some)
        return True

    def retry_some(self):
        task = self.pick('failed')
        if task is None:
            return False
        fails = task.fails
        if task.how != 'timeout':
            fails = self.rng.choice([0, 0, 0, task.max_attempts - 1, 99])
        self.graph.retry(task.name, fails)
        self.sql += [self.plan(task), 'SELECT taskshed.retry_task(%s)' % literal(task.name)]
        self.kinds['retried'] += 1
        return True

    def run_some(self):
        task = self.pick('waiting', 'due')
        if task is None or task.adds or task.name in self.graph.by_hand:
            return False
        self.graph.run_by_hand(task.name)
        self.sql.append('SELECT taskshed.run_task(%s)' % literal(task.name))
        self.kinds['run by hand'] += 1
        return True

    def replace_some(self):
        rng, graph = self.rng, self.graph
        task = self.pick('waiting', 'waiting', 'waiting', 'failed', 'due')
        if task is None or task.how == 'timeout' or task.name in graph.by_hand:
            return False
        old = [p for p, e in task.edges.items() if p in graph.tasks or e.ends and e.gone]
        new = [t.name for t in graph.tasks.values() if t.rank < task.rank and t.name not in old]
        kind = rng.choice(['none', 'same', 'same', 'some', 'other', 'more'])
        after = []
        if kind == 'same' and len(old) == len(task.edges):
            after = old
        if kind in ('some', 'more'):
            after = rng.sample(old, rng.randint(0, len(old)))
        if kind in ('other', 'more'):
            after = after + rng.sample(new, min(len(new), rng.randint(1, 3)))
        if not after and kind != 'none':
            return False
        status = rng.choice([task.after_status] * 3 + ['succeeded', 'ended', 'failed'])
        # (what a task keeps of one that it has been told of is only so if it was the whole of it)
        if task.told != 'exactly' and task.state != 'waiting' and any(p in task.edges for p in after):
            return False
        if task.state != 'waiting' and sorted(after) == sorted(task.edges):
            status = task.after_status      # one that has waited already does not do so again
        graph.replace(task.name, after or None, status, rng.choice([0, 0, 0, 99]))
        spec = self.spec(task, after or None)
        if kind == 'none':
            spec.pop('after_status', None)
            task.after_status = 'succeeded'
        spec.pop('paused', None)
        if rng.random() < 0.3 and after:
            spec['after_status'] = status
        self.sql += [self.plan(task), self.add_tasks([spec])]
        self.kinds['replaced, %s' % kind] += 1
        return True

    def add_before(self):
        rng, graph = self.rng, self.graph
        waiting = [t for t in graph.tasks.values() if t.state == 'waiting']
        if not waiting:
            return False
        some = rng.sample(waiting, min(len(waiting), rng.choice([1, 1, 2, 5])))
        rank = min(t.rank for t in some) - rng.random() / 2
        self.news += 1
        task = Task('%s/n%d' % (self.prefix, self.news), rank)
        self.fate(task)
        earlier = [t.name for t in graph.tasks.values() if t.rank < rank]
        after = rng.sample(earlier, min(len(earlier), rng.choice([0, 0, 1, 2])))
        task.after_status = rng.choice(['succeeded', 'ended', 'failed']) if after else 'succeeded'
        before = [t.name for t in some]
        graph.add(task, after, before)
        self.sql += [self.plan(task), self.add_tasks([self.spec(task, after or None, before=before)])]
        self.kinds['before'] += 1
        return True

    def pause_some(self):
        task = self.pick('waiting')
        if task is None or task.paused:
            return False
        self.graph.hold(task.name)
        self.sql.append('SELECT taskshed.pause_task(%s)' % literal(task.name))
        self.kinds['paused child'] += 1
        return True

    def change_some(self, kinds):
        """One change, unless what comes of it depends on the order of things."""
        graph, sql, news, seen = self.graph, self.sql, self.news, self.kinds.copy()
        self.graph, self.sql = graph.copy(self.rng.random()), list(sql)
        try:
            if self.rng.choice(kinds)() and self.settled() is not None:
                return True
        except Undecided:
            pass
        self.graph, self.sql, self.news, self.kinds = graph, sql, news, seen
        return False

    def settled(self):
        """The graph when all has run; None if the order matters."""
        last = None
        for _ in range(ORDERS):
            graph = self.graph.copy(self.rng.random())
            graph.settle()
            if last is not None and graph.show() != last.show():
                return None
            last = graph
        return last

    def step(self):
        """The end of a step: all is committed, and all runs that can."""
        self.graph = self.settled()
        if self.graph is None:
            raise Undecided
        self.steps.append({'sql': self.sql, 'expected': self.graph.show()})
        self.sql = []


def story(seed, prefix):
    """A graph with all that happens to it."""
    again = 0
    while True:
        again += 1
        rng = random.Random('%s %d' % (seed, again))
        it = Story(rng, prefix)
        held = [it.remove_some, it.replace_some, it.replace_some, it.add_before, it.pause_some, it.run_some]
        late = [it.remove_some, it.retry_some, it.retry_some, it.retry_some, it.replace_some, it.add_before,
                it.run_some, it.release]
        try:
            it.add_all()
            it.step()
            for _ in range(rng.randint(0, 6)):
                it.change_some(held)
            it.step()
            it.release()
            it.step()
            for _ in range(3):
                for _ in range(rng.randint(1, 8)):
                    it.change_some(late)
                it.step()
        except Undecided:
            continue
        it.kinds['tasks'] += len({name for name, _ in it.graph.runs})
        it.kinds['effects'] += len(it.graph.effects)
        for (_, status), n in it.graph.runs.items():
            it.kinds['run ' + status] += n
        it.kinds['left waiting'] += sum(t.state == 'waiting' for t in it.graph.tasks.values())
        it.kinds['lost'] += sum(t.lost for t in it.graph.tasks.values())
        it.kinds['drawn again'] += again - 1
        return it


def graphs(seed, number, n):
    """A round of graphs, as JSON."""
    stories = [story('%s graph %d %d' % (seed, number, i), 'r%d.%d' % (number, i)) for i in range(n)]
    kinds = sum((s.kinds for s in stories), collections.Counter())
    steps = [{'sql': [s.steps[i]['sql'] for s in stories],
              'expected': sorted(sum((s.steps[i]['expected'] for s in stories), []))}
             for i in range(len(stories[0].steps))]
    told = [line for s in stories for line in s.graph.told()]
    return {'steps': steps, 'told': told, 'kinds': kinds}


# ---------------------------------------------------------------------------------------------------
# Nights: tasks that run after others again and again
#
# Times are numbers of nights; a run by hand is at BY_HAND and later.

BY_HAND = 10000


class Lasting:
    """A task of a night: one with times of its own, or one that runs after others."""

    def __init__(self, name, lock, parents, after_status):
        self.name, self.lock = name, lock
        self.parents, self.after_status = parents, after_status
        self.now, self.next = {}, {}    # {parent: (time, status)}: of this round, and of the one after it
        self.due = None                 # the time that it is due, or running, for
        self.running = self.held = self.fails = False
        self.last = 0


class Nights:
    def __init__(self, rng, prefix, number):
        self.rng = rng
        self.tasks = {}                 # parents come before those that run after them
        self.runs = []                  # (task, status, time, what it was told)
        self.by_hand = 0
        self.order = 1
        self.kinds = collections.Counter()
        self.steps = []
        n = rng.randint(2, 4)
        for i in range(n + rng.choice([1, 1, 2, 3])):
            name = '%s/%s%d' % (prefix, rng.choice('abc'), i)
            parents = []
            if i >= n:
                parents = rng.sample(list(self.tasks), rng.randint(1 if i > n else 2, min(i, 4)))
                if i > n and rng.random() < 0.7:
                    parents = list(dict.fromkeys(parents + [list(self.tasks)[-1]]))
            self.tasks[name] = Lasting(name, number * 10 + i, parents,
                                       rng.choice(['succeeded', 'succeeded', 'ended', 'failed']))
        specs = []
        for t in self.tasks.values():
            spec = {'callback': 'public.night', 'kwargs': {'task': t.name, 'lock': t.lock}, 'task_id': t.name}
            if t.parents:
                spec.update(after=t.parents, after_status=t.after_status)
            else:
                spec.update(every='100 years', run_at='2200-01-01')
            specs.append(spec)
        rng.shuffle(specs)
        self.specs = {s['task_id']: s for s in specs}
        self.add_step(['SELECT taskshed.add_tasks(%s)' % literal(json.dumps(specs))])

    def children(self, name):
        return [t for t in self.tasks.values() if name in t.parents]

    def busy(self, name, since):
        """Whether a task is due, or running, for a later time."""
        due = self.tasks[name].due
        return due is not None and due > since

    def reached(self, name, since):
        """Whether something that a task waits for has ended for a later time, or is to run for it."""
        return any(time > since for time, _ in self.tasks[name].now.values()) or \
            any(self.busy(p, since) or (self.tasks[p].due is None and self.reached(p, since))
                for p in self.tasks[name].parents)

    def settle(self):
        while True:
            ready = [t for t in self.tasks.values() if t.due is not None and not t.running]
            if not ready:
                return
            task = ready[0]
            task.running = True
            if not task.held:
                self.finish(task)

    def finish(self, task):
        time, task.due, task.running, task.held = task.due, None, False, False
        status = 'failed' if task.fails else 'succeeded'
        told = ' '.join('%s=%s@%d' % (p, s, t) for p, (t, s) in sorted(task.now.items()))
        self.runs.append((task.name, status, str(time), '' if task.fails else told))
        self.end(task, time, status)

    def end(self, task, time, status):
        if task.parents:
            task.now, task.next = task.next, {}
            if self.order == 1:
                self.consider(task)
        waiting = []
        for child in self.children(task.name):
            if child.due is not None:
                child.next[task.name] = (time, status)
            else:
                child.now[task.name] = (time, status)
                waiting.append(child)
        for child in waiting[::self.order]:
            if child.due is None:
                self.consider(child)
        if self.order == -1 and task.parents and task.due is None:
            self.consider(task)

    def consider(self, task):
        ends = list(task.now.values())
        if not ends:
            return
        failed = any(s == 'failed' for _, s in ends)
        if task.after_status == 'failed' and failed:
            task.due = max(t for t, _ in ends)
            return
        latest = max(t for t, _ in ends)
        if len(ends) < len(task.parents) or any(
                self.busy(p, t) or (t < latest and self.tasks[p].due is None and self.reached(p, t))
                for p, (t, _) in task.now.items()):
            return
        if task.after_status == 'succeeded' and any(s != 'succeeded' for _, s in ends):
            return
        time = max(t for t, _ in ends)
        if task.after_status == 'failed':
            self.runs.append((task.name, 'skipped', str(time), ''))
            self.kinds['skipped'] += 1
            self.end(task, time, 'skipped')
        else:
            task.due = time

    def add_step(self, sql, lock=0, unlock=0):
        self.settle()
        self.steps.append({'sql': sql, 'lock': lock, 'unlock': unlock, 'expected': self.show(),
                           'running': [t.name for t in self.tasks.values() if t.running]})

    def show(self):
        n = collections.Counter()
        lines = []
        for name, status, time, told in self.runs:
            n[name] += 1
            lines.append('%s %d %s %s %s' % (name, n[name], status, time, told))
        for t in self.tasks.values():
            if t.parents:
                state = 'running' if t.running else 'waiting'
                missing = sorted(p for p in t.parents if p not in t.now or
                                 t.after_status == 'succeeded' and t.now[p][1] != 'succeeded' or
                                 self.busy(p, t.now[p][0]))
                lines.append('%s is %s %s' % (t.name, state, '' if t.running else ','.join(missing)))
        return lines

    def decided_step(self):
        """A step of which the end does not depend on who is told first within one commit."""
        while True:
            both = [pickle.loads(pickle.dumps(self)) for _ in range(2)]
            both[1].order = -1
            for it in both:
                it.step()
            if both[0].steps == both[1].steps:
                return both[0]
            self.rng.random()

    def plan(self, task, fails):
        task.fails = fails
        return "SELECT plan(%s, %d, 'raise')" % (literal(task.name), 99 if fails else 0)

    def step(self):
        rng = self.rng
        running = [t for t in self.tasks.values() if t.running]
        held = [t for t in self.tasks.values() if t.held]
        if held and rng.random() < 0.25:
            task = rng.choice(held)
            if task.running:
                self.finish(task)
            task.held = False
            self.add_step([], unlock=task.lock)
            return
        sql, lock = [], 0
        for t in self.tasks.values():
            if t.parents and t not in running:
                fails = rng.random() < 0.2
                if fails != t.fails:
                    sql.append(self.plan(t, fails))
        if not held and rng.random() < 0.35:
            # mostly one that has ended in a round that is not complete
            half = [self.tasks[p] for t in self.tasks.values() for p in t.now if not self.tasks[p].parents]
            task = rng.choice(half if half and rng.random() < 0.7 else list(self.tasks.values()))
            task.held, lock = True, task.lock
            self.kinds['held'] += 1
        idle = [t for t in self.tasks.values() if not t.running and not t.parents]
        if not idle:
            self.add_step(sql, lock)
            return
        task = rng.choice(idle)
        if held or lock:
            task = next((t for t in idle if t.held), task)
        if rng.random() < 0.1:
            child = rng.choice([t for t in self.tasks.values() if t.parents])
            spec = self.specs[child.name]
            sql.append('SELECT taskshed.add_tasks(%s)' % literal(json.dumps([spec])))
            self.kinds['deployed'] += 1
        sql.append(self.plan(task, rng.random() < 0.25))
        if rng.random() < 0.15 and all(t.due < BY_HAND for t in running):
            self.by_hand += 1
            task.due = BY_HAND + self.by_hand
            sql.append('SELECT taskshed.run_task(%s)' % literal(task.name))
            self.kinds['by hand'] += 1
        else:
            task.due = task.last = task.last + rng.choice([1, 1, 1, 2])
            sql.append("SELECT taskshed.update_execution_time(%s, '2020-01-01'::timestamptz + interval '%d days')" %
                       (literal(task.name), task.due))
            self.kinds['times'] += 1
        self.add_step(sql, lock)


def nights(seed, n, steps):
    """Several series of nights, as JSON."""
    them = []
    for i in range(n):
        it = Nights(random.Random('%s nights %d' % (seed, i)), 'n%d' % i, i + 1)
        for _ in range(steps):
            it = it.decided_step()
        for t in it.tasks.values():
            it.kinds['runs after others'] += sum(r[0] == t.name for r in it.runs) if t.parents else 0
        them.append(it)
    return {'nights': [it.steps for it in them],
            'kinds': sum((it.kinds for it in them), collections.Counter())}


def take_zones(made):
    zones.update(made)


def main():
    if sys.argv[1] == 'graphs':
        json.dump(graphs(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])), sys.stdout)
        return
    if sys.argv[1] == 'nights':
        json.dump(nights(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])), sys.stdout)
        return
    folder = sys.argv[1]
    horizon = seconds(*[int(x) for x in sys.argv[2].split('-')])
    # The processes begin anew and are given the zones: from Python 3.14 on they are no copies of this
    # one unless that is asked for, so they are not before, either.
    made = {name: Zone(name, horizon) for name in ZONES}
    with multiprocessing.get_context('spawn').Pool(initializer=take_zones, initargs=(made,)) as pool:
        for what, make, n in [('cron', cron_line, TRIPLES), ('every', every_line, TRIPLES // 4)]:
            counts = collections.Counter()
            with open(os.path.join(folder, what + '.tsv'), 'w') as out:
                for line, kinds in pool.imap(make, ((i, horizon) for i in range(n)), 100):
                    out.write(line + '\n')
                    counts.update(set(kinds))
            for kind, count in sorted(counts.items()):
                print('%s, %s: %d' % (what, kind, count))


if __name__ == '__main__':
    main()
