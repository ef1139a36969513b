/*-------------------------------------------------------------------------
 *
 * cron_describe.c
 *		A cron expression in plain English.
 *
 * It is told from what the expression means, not from how it is written: the
 * same times are described in the same words.  What goes by elapsed time has
 * other times when clocks change than a list of the same numbers.  So the one is
 * "every" so much where its steps are even, and the other a list of times; hours
 * in a row are "every hour" in either case.  A step that selects one value is
 * that value.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "port/pg_bitutils.h"

#include "times/times.h"

/* So many times of day are listed at most; more are described. */
#define MAX_LISTED		6

#define ALL_MINUTES		CRON_BITS(0, 59)
#define ALL_HOURS		CRON_BITS(0, 23)
#define ALL_DAYS		CRON_BITS(1, 31)
#define ALL_MONTHS		CRON_BITS(1, 12)
#define ALL_WEEKDAYS	CRON_BITS(0, 6)

static const char *const months[] =
{NULL, "January", "February", "March", "April", "May", "June", "July", "August", "September",
"October", "November", "December"};
static const char *const weekdays[] =
{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"};
static const char *const ordinals[] = {"first", "second", "third", "fourth", "fifth"};

/* A list that is being written: "a", "a and b", "a, b and c". */
typedef struct WordList
{
	char	   *items[64];
	int			n;
} WordList;

static void
list_add(WordList *list, char *item)
{
	list->items[list->n++] = item;
}

static char *
list_join(const WordList *list, const char *conjunction)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < list->n; i++)
	{
		if (i > 0 && i == list->n - 1)
			appendStringInfo(&buf, " %s ", conjunction);
		else if (i > 0)
			appendStringInfoString(&buf, ", ");
		appendStringInfoString(&buf, list->items[i]);
	}
	return buf.data;
}

static int
count_bits(uint64 bits)
{
	return pg_popcount64(bits);
}

/* Return where the run of bits that begins at n ends. */
static int
last_in_row(uint64 bits, int n)
{
	while (bits & CRON_BIT(n + 1))
		n++;
	return n;
}

/* Return whether these are all from the first to the last of them. */
static bool
is_range(uint64 bits)
{
	int			first = cron_next_bit(bits, 0);

	return cron_next_bit(bits, last_in_row(bits, first) + 1) < 0;
}

/*
 * Return the step, if these are every so many of 0 to size - 1 and go on
 * evenly; or 0.
 */
static int
even_step(uint64 bits, int size)
{
	int			step = (bits & 1) ? cron_next_bit(bits, 1) : -1;

	if (step < 1 || size % step != 0 || count_bits(bits) != size / step)
		return 0;
	for (int n = 0; n < size; n += step)
	{
		if (!(bits & CRON_BIT(n)))
			return 0;
	}
	return step;
}

/* Say "5, 7 to 10 and 30"; with names in place of numbers if there are any. */
static char *
describe_set(uint64 bits, const char *const *names, const char *conjunction)
{
	WordList	list = {.n = 0};

	for (int n = cron_next_bit(bits, 0); n >= 0; n = cron_next_bit(bits, n + 1))
	{
		int			last = last_in_row(bits, n);

		if (last < n + 2)
			list_add(&list, names != NULL ? pstrdup(names[n]) : psprintf("%d", n));
		else
		{
			list_add(&list, names != NULL ? psprintf("%s to %s", names[n], names[last]) :
					 psprintf("%d to %d", n, last));
			n = last;
		}
	}
	return list_join(&list, conjunction);
}

/* Say "minute 5", or "minutes 5 and 10 to 20". */
static char *
describe_numbers(uint64 bits, const char *unit)
{
	return psprintf("%s%s %s", unit, count_bits(bits) > 1 ? "s" : "",
					describe_set(bits, NULL, "and"));
}

/* Say "minute", or "5 minutes": what comes after "every". */
static char *
describe_period(int n, const char *unit)
{
	return n == 1 ? pstrdup(unit) : psprintf("%d %ss", n, unit);
}

/* List the times of day, one by one. */
static char *
describe_times(const Cron *cron)
{
	WordList	list = {.n = 0};
	int			second = cron_next_bit(cron->seconds, 0);

	for (int hour = cron_next_bit(cron->hours, 0); hour >= 0;
		 hour = cron_next_bit(cron->hours, hour + 1))
	{
		for (int minute = cron_next_bit(cron->minutes, 0); minute >= 0;
			 minute = cron_next_bit(cron->minutes, minute + 1))
			list_add(&list, second == 0 ? psprintf("%02d:%02d", hour, minute) :
					 psprintf("%02d:%02d:%02d", hour, minute, second));
	}
	return psprintf("At %s", list_join(&list, "and"));
}

/*
 * Say the hours, to go behind what happens in each of them.  The last one lasts
 * until its end if that happens more than once in an hour.
 */
static char *
describe_hours(uint64 hours, bool often)
{
	int			first = cron_next_bit(hours, 0);
	int			last = last_in_row(hours, first);

	if (hours == ALL_HOURS)
		return "";
	if (often && is_range(hours))
		return psprintf(" from %02d:00 to %02d:59", first, last);
	return psprintf(" in %s", count_bits(hours) == 1 ? psprintf("the hour from %02d:00", first) :
					psprintf("the hours %s", describe_set(hours, NULL, "and")));
}

/* Say what time of day it is. */
static char *
describe_time(const Cron *cron)
{
	int			seconds_step = even_step(cron->seconds, 60);
	int			minutes_step = cron->by_elapsed_time ? even_step(cron->minutes, 60) : 0;
	int			hours_step = cron->by_elapsed_time ? even_step(cron->hours, 24) : 0;
	uint64		hours = cron->hours;

	if (count_bits(cron->seconds) == 1 &&
		count_bits(cron->minutes) * count_bits(hours) <= (cron->by_elapsed_time ? 1 : MAX_LISTED))
		return describe_times(cron);

	if (cron->seconds == CRON_BIT(0))
	{
		if (minutes_step > 0 && minutes_step < 60)
			return psprintf("Every %s%s", describe_period(minutes_step, "minute"),
							describe_hours(hours, true));
		if (hours_step > 1 && count_bits(cron->minutes) == 1)
			return psprintf("Every %s from 00:%02d", describe_period(hours_step, "hour"),
							cron_next_bit(cron->minutes, 0));
		if (cron->minutes == CRON_BIT(0) && hours_step == 1)
			return pstrdup("Every hour");
		if (cron->minutes == CRON_BIT(0) && is_range(hours))
			return psprintf("Every hour from %02d:00 to %02d:00", cron_next_bit(hours, 0),
							last_in_row(hours, cron_next_bit(hours, 0)));
		return psprintf("At %s of %s", describe_numbers(cron->minutes, "minute"),
						hours == ALL_HOURS ? "every hour" :
						psprintf("the %s", describe_numbers(hours, "hour")));
	}

	if (seconds_step > 0)
	{
		if (cron->minutes == ALL_MINUTES)
			return psprintf("Every %s%s", describe_period(seconds_step, "second"),
							describe_hours(hours, true));
		return psprintf("Every %s in %s of %s", describe_period(seconds_step, "second"),
						describe_numbers(cron->minutes, "minute"),
						hours == ALL_HOURS ? "every hour" :
						psprintf("the %s", describe_numbers(hours, "hour")));
	}
	return psprintf("At %s of %s%s", describe_numbers(cron->seconds, "second"),
					cron->minutes == ALL_MINUTES ? "every minute" :
					psprintf("%s of", describe_numbers(cron->minutes, "minute")),
					cron->minutes == ALL_MINUTES ? describe_hours(hours, true) :
					hours == ALL_HOURS ? " every hour" :
					psprintf(" the %s", describe_numbers(hours, "hour")));
}

/* Say what the field day of month says; NULL if it is every day. */
static char *
describe_days(const Cron *cron)
{
	WordList	list = {.n = 0};

	if (cron->days == ALL_DAYS)
		return NULL;
	if (cron->days != 0)
		list_add(&list, describe_numbers(cron->days, "day"));
	if (cron->last_day)
		list_add(&list, "the last day");
	if (cron->nearest != 0)
		list_add(&list, psprintf("the weekday%s nearest to %s",
								 count_bits(cron->nearest) > 1 ? "s" : "",
								 describe_numbers(cron->nearest, "day")));
	if (cron->last_workday)
		list_add(&list, "the last weekday");
	return psprintf("on %s of the month", list_join(&list, "and"));
}

/*
 * Say what the field day of week says, each item with something before and
 * after it.  It has no ranges then.
 */
static char *
describe_weekdays(const Cron *cron, const char *before, const char *after, const char *conjunction)
{
	WordList	list = {.n = 0};

	/* a week begins on Monday, as far as ranges go */
	for (int day = 1; day <= 7; day++)
	{
		if (cron->weekdays & CRON_BIT(day % 7))
			list_add(&list, psprintf("%s%s%s", before, weekdays[day], after));
	}
	for (int n = 0; n <= 5; n++)
	{
		uint8		bits = n < 5 ? cron->nth_weekdays[n] : cron->last_weekdays;

		for (int day = 1; day <= 7; day++)
		{
			if (bits & CRON_BIT(day % 7))
				list_add(&list, psprintf("the %s %s of the month", n < 5 ? ordinals[n] : "last",
										 weekdays[day]));
		}
	}
	return list_join(&list, conjunction);
}

/*
 * Return whether weekdays are a range of three or more and nothing else.  Bit 7
 * is Sunday then.
 */
static bool
weekdays_are_range(const Cron *cron, uint64 *range)
{
	for (int n = 0; n < 5; n++)
	{
		if (cron->nth_weekdays[n] != 0)
			return false;
	}
	*range = (cron->weekdays & ~CRON_BIT(0)) | ((cron->weekdays & CRON_BIT(0)) ? CRON_BIT(7) : 0);
	return cron->last_weekdays == 0 && count_bits(*range) >= 3 && is_range(*range);
}

/*
 * Say the days, to go behind the time of day; nothing if they are all days of
 * the week and month.
 */
static char *
describe_dates(const Cron *cron)
{
	char	   *days = describe_days(cron);
	bool		every_weekday = (cron->weekdays == ALL_WEEKDAYS);
	bool		both = (cron->any_day || cron->any_weekday);
	uint64		range;

	if ((days == NULL && every_weekday) || (!both && (days == NULL || every_weekday)))
		return "";
	if (every_weekday)
		return psprintf(" %s", days);
	if (days == NULL)
	{
		if (weekdays_are_range(cron, &range))
			return psprintf(", %s", describe_set(range, weekdays, "and"));
		return psprintf(" on %s", describe_weekdays(cron, "", "s", "and"));
	}
	if (!both)
	{
		if (weekdays_are_range(cron, &range))
			return psprintf(" %s and from %s", days, describe_set(range, weekdays, "and"));
		return psprintf(" %s and on %s", days, describe_weekdays(cron, "", "s", "and"));
	}
	return psprintf(" %s, if that is %s", days, describe_weekdays(cron, "a ", "", "or"));
}

/*
 * Return whether these are the same minutes in all zones.  Those of today
 * differ by quarters of an hour.
 */
static bool
in_each_quarter(uint64 minutes)
{
	uint64		first = minutes & CRON_BITS(0, 14);

	return minutes == (first | first << 15 | first << 30 | first << 45);
}

/*
 * Describe an expression whose fields match the local time of a zone.  What is
 * to be said of its offsets comes last.
 */
char *
cron_describe(const Cron *cron, const char *zone, const char *offsets)
{
	char	   *time;
	char	   *dates;
	bool		all_months = (cron->months == ALL_MONTHS);

	if (cron->period > 0)
		return psprintf("Every %s", describe_period(cron->period, "second"));

	time = describe_time(cron);
	dates = describe_dates(cron);
	if (dates[0] == '\0' && all_months && cron->hours == ALL_HOURS &&
		cron->by_elapsed_time && in_each_quarter(cron->minutes))
		return time;
	if (dates[0] == '\0' && cron->hours != ALL_HOURS)
		dates = " every day";
	return psprintf("%s%s%s%s, %s%s%s", time, dates,
					all_months ? "" :
					strchr(dates, ',') != NULL ? ", in " : " in ",
					all_months ? "" : describe_set(cron->months, months, "and"),
					zone, strcmp(zone, "UTC") == 0 ? "" : " time", offsets);
}
