/*-------------------------------------------------------------------------
 *
 * hooks.h
 *		What the server calls us for.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_HOOKS_HOOKS_H
#define TASKSHED_HOOKS_HOOKS_H

#include "postgres.h"

#include "launcher/launcher.h"

/* ------------------------------------------------------------------------
 * commands.c
 */
extern void commands_init(void);

/* ------------------------------------------------------------------------
 * replicated.c
 */
extern void replicated_relation_changed(Oid relid);

#endif							/* TASKSHED_HOOKS_HOOKS_H */
