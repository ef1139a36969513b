/*-------------------------------------------------------------------------
 *
 * words.h
 *		The words of settings, parameters and columns.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_SHARED_WORDS_H
#define TASKSHED_SHARED_WORDS_H

#include "postgres.h"

#include "utils/guc.h"

/* Which runs of a task are recorded. */
typedef enum HistoryMode
{
	HISTORY_ALL,
	HISTORY_ERRORS,				/* all but those that have succeeded */
	HISTORY_NONE
} HistoryMode;

/* What becomes of times that were missed. */
typedef enum CatchUp
{
	CATCH_UP_COALESCE,			/* one run stands for them all */
	CATCH_UP_ALL,				/* each has its run */
	CATCH_UP_SKIP				/* they have none */
} CatchUp;

/* How a run has ended. */
typedef enum RunStatus
{
	RUN_NONE,					/* not at all: it has no word */
	RUN_SUCCEEDED,
	RUN_FAILED,
	RUN_TIMEOUT,
	RUN_CANCELLED,
	RUN_INTERRUPTED,
	RUN_MISSED,					/* its time has passed without it */
	RUN_SKIPPED					/* what it waited for cannot come any more */
} RunStatus;

/* Which ends of the tasks that a task runs after it waits for. */
typedef enum AfterStatus
{
	AFTER_SUCCEEDED,			/* all have succeeded */
	AFTER_ENDED,				/* all have ended, either way */
	AFTER_FAILED				/* one has failed */
} AfterStatus;

extern const struct config_enum_entry history_words[];
extern const struct config_enum_entry catch_up_words[];
extern const struct config_enum_entry run_status_words[];
extern const struct config_enum_entry after_status_words[];

extern const char *word_text(const struct config_enum_entry *words, int value);
extern int	word_value(const struct config_enum_entry *words, Datum word, int otherwise);
extern char *word_list(const struct config_enum_entry *words);

#endif							/* TASKSHED_SHARED_WORDS_H */
